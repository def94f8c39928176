"""The axes of the family: for each, the table of its names."""

from purejaxdqn.dqn.bootstrap import BOOTSTRAPS
from purejaxdqn.dqn.ensemble import PRIORS
from purejaxdqn.dqn.heads import HEADS, RISKS
from purejaxdqn.dqn.memory import MEMORIES
from purejaxdqn.dqn.networks import NOISE, TORSOS
from purejaxdqn.dqn.optimizers import OPTIMIZERS
from purejaxdqn.dqn.replay import REPLAYS

AXES = (HEADS, RISKS, OPTIMIZERS, BOOTSTRAPS, REPLAYS, TORSOS, NOISE, MEMORIES, PRIORS)
