"""Photographs as tensorflow-datasets prepares them, few and small."""

import io

import numpy as np
from PIL import Image

from loplax.streams import makers

CLASSES = {"imagenet2012": 4, "places365_small": 3}
FILE = {"imagenet2012": "file_name", "places365_small": "filename"}


def jpeg(rng, size, mode):
    """A smooth photograph, so that compression leaves it much as it was."""
    small = rng.integers(256, size=(3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
    packed = io.BytesIO()
    image.save(packed, format="jpeg")
    return packed.getvalue()


def photographs(name, number, seed):
    """Records as the official builders make them."""
    rng, classes = np.random.default_rng(seed), CLASSES[name]
    found = []
    for i in range(number):
        size = tuple(rng.integers(10, 40, 2)) if name == "imagenet2012" else (12, 12)
        image = jpeg(rng, size, "L" if i % 5 == 3 else "RGB")
        label, file = int(rng.integers(classes)), f"data_256/{seed}/{i:03d}.jpg"
        found.append({"image": image, "label": label, FILE[name]: file})
    return found


def prepare(name, data_dir, splits):
    """Writes a prepared folder with the features of the official builder."""
    import tensorflow_datasets as tfds

    official_name, official_version = makers.MAKERS[name].prepared.split("/")
    image = tfds.features.Image(encoding_format="jpeg")
    if name == "places365_small":
        image = tfds.features.Image(shape=(12, 12, 3))
    features = {
        "image": image,
        "label": tfds.features.ClassLabel(num_classes=CLASSES[name]),
        FILE[name]: tfds.features.Text(),
    }

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = official_name
        VERSION = tfds.core.Version(official_version)
        code_path = None

        def _info(self):
            features_of_all = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_of_all)

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(split) for s, split in splits.items()}

        def _generate_examples(self, split):
            yield from enumerate(split)

    builder = Builder(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
