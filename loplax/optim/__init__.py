"""Gradient transformations that keep networks able to learn, and what they learned."""

from loplax.optim.a_gem import a_gem as a_gem
from loplax.optim.adam import adam as adam
from loplax.optim.ccbp import ccbp as ccbp
from loplax.optim.consolidation import ConsolidationState as ConsolidationState
from loplax.optim.consolidation import permuted as permuted
from loplax.optim.continual_backprop import continual_backprop as continual_backprop
from loplax.optim.elastic_weight_consolidation import (
    elastic_weight_consolidation as elastic_weight_consolidation,
)
from loplax.optim.elastic_weight_consolidation import fisher as fisher
from loplax.optim.frozen import FrozenState as FrozenState
from loplax.optim.frozen import frozen as frozen
from loplax.optim.hare_tortoise import hare_tortoise as hare_tortoise
from loplax.optim.l2_init import l2_init as l2_init
from loplax.optim.memory_aware_synapses import (
    memory_aware_synapses as memory_aware_synapses,
)
from loplax.optim.memory_aware_synapses import sensitivity as sensitivity
from loplax.optim.mesu import Gaussian as Gaussian
from loplax.optim.mesu import gaussian as gaussian
from loplax.optim.mesu import mesu as mesu
from loplax.optim.mesu import sample as sample
from loplax.optim.metaplastic import metaplastic as metaplastic
from loplax.optim.normalize_and_project import (
    normalize_and_project as normalize_and_project,
)
from loplax.optim.one_cycle import one_cycle as one_cycle
from loplax.optim.parseval_regularization import (
    parseval_regularization as parseval_regularization,
)
from loplax.optim.redo import redo as redo
from loplax.optim.regrama import regrama as regrama
from loplax.optim.replacement import PerUnit as PerUnit
from loplax.optim.restartable import RestartableState as RestartableState
from loplax.optim.restartable import restartable as restartable
from loplax.optim.selective_weight_reinitialization import (
    selective_weight_reinitialization as selective_weight_reinitialization,
)
from loplax.optim.self_normalized_resets import (
    self_normalized_resets as self_normalized_resets,
)
from loplax.optim.shrink_and_perturb import shrink_and_perturb as shrink_and_perturb
from loplax.optim.spectral_regularization import (
    spectral_regularization as spectral_regularization,
)
from loplax.optim.synaptic_intelligence import (
    synaptic_intelligence as synaptic_intelligence,
)
from loplax.optim.upgd import upgd as upgd
from loplax.optim.wasserstein_regularization import (
    wasserstein_regularization as wasserstein_regularization,
)
from loplax.optim.weight_clipping import weight_clipping as weight_clipping
from loplax.optim.wrapper import ReplacementState as ReplacementState
from loplax.optim.wrapper import newly_replaced as newly_replaced
