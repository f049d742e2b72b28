from .loop.sigma_sampler import Drawn as Drawn
from .loop.sigma_sampler import SigmaSampler as SigmaSampler
from .measured import Measured as Measured
from .optimisers import AveragedSGD as AveragedSGD
from .optimisers import ConstantStepSGD as ConstantStepSGD
from .shared import SharedTraining as SharedTraining
