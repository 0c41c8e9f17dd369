"""Reads the records that tensorflow-datasets has prepared, as arrays."""

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures

import numpy as np

BATCH = 1000  # records read at a time
Selection = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def arrays(
    builder,
    split: str,
    select: Selection | None = None,
    sides: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split.

    Args:
      builder: of tensorflow-datasets, for a prepared folder in array_record format.
      split: name of the split.
      select: gives the indices of those that are wanted, from all features but the
        images; by default all are. The images of others are not decoded.
      sides: of the `square` made of every image; by default they stay as they are.

    Returns:
      uint8 ``[examples, height, width, channels]`` and int32 ``[examples]``.

    Raises:
      ValueError: for no such split, or indices that are not of its examples.
      OSError: for an image that cannot be decoded.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    # Decoded by tensorflow-datasets, it takes half as long again.
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=decoders)
    title = f"{builder.name} {split}"
    wanted = np.arange(len(source))
    if select is not None:
        wanted = chosen(select, _features(source, f"{title}: labels"))
    shape = (sides[1], sides[1], 3) if sides else builder.info.features["image"].shape
    images = np.empty((wanted.size, *shape), np.uint8)
    labels = np.empty(wanted.size, np.int32)

    def keep(place: int, record: Mapping) -> None:
        image = Image.open(io.BytesIO(record["image"]))
        pixels = np.asarray(square(image, *sides) if sides else image)
        images[place], labels[place] = pixels.reshape(shape), record["label"]

    # Pillow decodes without the GIL; small images take 1.4 times as long in threads.
    with futures.ThreadPoolExecutor() as pool:
        each = pool.map if sides else map
        for start, batch in _batches(source, wanted, title):
            list(each(keep, range(start, start + len(batch)), batch))
    return images, labels


def chosen(select: Selection, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """The indices that ``select`` gives, if they are of the examples."""
    number, indices = len(features["label"]), np.asarray(select(features))
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            "a selection must give whole numbers in a row, got "
            f"{indices.dtype} of shape {indices.shape}."
        )
    if not indices.size or indices.min() < 0 or indices.max() >= number:
        of = f"{indices.min()} to {indices.max()}" if indices.size else "none"
        raise ValueError(
            f"a selection must give indices of {number} examples, got {of}."
        )
    return indices


def square(image, resize: int, crop: int):
    """The centre of an image: what torchvision's Resize and CenterCrop make of it.

    Args:
      image: a Pillow image.
      resize: the shorter side after bilinear scaling.
      crop: side of the square that is cut out, at most as large.

    Returns:
      The RGB image, ``crop`` x ``crop``.

    Example:
      >>> from PIL import Image
      >>> square(Image.new("L", (500, 375)), 256, 224).size
      (224, 224)
    """
    from PIL import Image

    width, height = (int(resize * n / min(image.size)) for n in image.size)
    scaled = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return scaled.crop((left, top, left + crop, top + crop))


def _features(source, title: str) -> dict[str, np.ndarray]:
    """All features of all records but their images."""
    found: dict[str, list] = {}
    for _, batch in _batches(source, np.arange(len(source)), title):
        for name in batch[0].keys() - {"image"}:
            found.setdefault(name, []).extend(record[name] for record in batch)
    return {name: np.array(values) for name, values in found.items()}


def _batches(source, indices: np.ndarray, title: str) -> Iterator[tuple[int, list]]:
    """So many records at a time, and the place of the first."""
    import tqdm

    starts = tqdm.tqdm(
        range(0, indices.size, BATCH),
        desc=title,
        unit="image",
        unit_scale=BATCH,
        disable=None,  # unless stderr is a terminal
    )
    for start in starts:
        yield start, source.__getitems__(indices[start : start + BATCH].tolist())
