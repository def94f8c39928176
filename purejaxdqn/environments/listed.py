"""The suites and their environments, known without importing any of them.

``tests/test_suites.py`` compares each row with the environment that is made.
"""

import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple


class Listed(NamedTuple):
    """An environment, made without arguments."""

    shape: tuple[int, ...]  # of an observation, as replay stores it
    dtype: str  # ... its NumPy type
    actions: int
    time_limit: int | None = None  # in steps
    illegal: bool = False  # whether some actions are illegal, and it says which
    depth: int = 1  # values of a number of an observation, where they can become one-hot; 1 where not
    solved_at: float | None = None  # the return from which the field calls it solved

    @property
    def inputs(self) -> int:
        """Most features that a network sees of an observation."""
        return math.prod(self.shape) * self.depth


class Suite(NamedTuple):
    """A package of environments."""

    environments: Mapping[str, Listed]
    install: str  # what pip installs
    refused: Mapping[str, str] = {}  # names, or their beginnings with a star, and why they cannot be trained on
    ours: bool = False  # whether it comes with this package


GYMNAX: Mapping[str, Listed] = {
    "CartPole-v1": Listed((4,), "float32", 2, 500, solved_at=475.0),
    "Acrobot-v1": Listed((6,), "float32", 3, 500, solved_at=-100.0),
    "MountainCar-v0": Listed((2,), "float32", 3, 200, solved_at=-110.0),
    "Asterix-MinAtar": Listed((10, 10, 4), "bool", 5, 1000),
    "Breakout-MinAtar": Listed((10, 10, 4), "bool", 3, 1000),
    "Freeway-MinAtar": Listed((10, 10, 7), "bool", 3, 2500),
    "Seaquest-MinAtar": Listed((10, 10, 10), "bool", 6, 1000),
    "SpaceInvaders-MinAtar": Listed((10, 10, 6), "bool", 4, 1000),
    "Catch-bsuite": Listed((10, 5), "bool", 3, 1000),
    "DeepSea-bsuite": Listed((8, 8), "bool", 2, 8),
    "MemoryChain-bsuite": Listed((3,), "float32", 2, 1000),
    "UmbrellaChain-bsuite": Listed((3,), "float32", 2, 100),
    "DiscountingChain-bsuite": Listed((2,), "float32", 5, 100),
    "SimpleBandit-bsuite": Listed((1, 1), "bool", 11, 100),
    "FourRooms-misc": Listed((4,), "int32", 4, 500, depth=12),
    "MetaMaze-misc": Listed((15,), "float32", 4, 200),
    "BernoulliBandit-misc": Listed((4,), "float32", 2, 100),
    "GaussianBandit-misc": Listed((4,), "float32", 2, 100),
    "Pong-misc": Listed((30, 40, 3), "bool", 3, 1000),
    "FrozenLake-misc": Listed((), "int32", 4, 100, depth=16),
}
"""Gymnax's environments with one discrete action that download nothing. Their ids name no suite."""

_XMINIGRID: Mapping[str, int] = {
    "BlockedUnlockPickUp": 576,
    **{"DoorKey-5x5": 250, "DoorKey-6x6": 360, "DoorKey-8x8": 640, "DoorKey-16x16": 2560},
    **{"Empty-5x5": 100, "Empty-6x6": 144, "Empty-8x8": 256, "Empty-16x16": 1024},
    **{"EmptyRandom-5x5": 100, "EmptyRandom-6x6": 144, "EmptyRandom-8x8": 256, "EmptyRandom-16x16": 1024},
    **{"FourRooms": 100, "LockedRoom": 190},
    **{"MemoryS8": 320, "MemoryS16": 1280, "MemoryS32": 5120, "MemoryS64": 20480, "MemoryS128": 81920},
    **{"Playground": 512, "Unlock": 288, "UnlockPickUp": 288},
}
"""Time limits of MiniGrid's environments."""

_OCTAX: Mapping[str, int] = {
    **{"airplane": 2, "blinky": 5, "brix": 3, "deep": 4, "filter": 3, "flight_runner": 5, "missile": 2, "pong": 3},
    **{"rocket": 2, "shooting_stars": 5, "spacejam": 5, "squash": 3, "submarine": 2, "tank": 6, "tetris": 5},
    **{"ufo": 4, "vertical_brix": 3, "wipe_off": 3, "worm": 5},
    **dict.fromkeys((f"cavern{level}" for level in (1, 2, 3, 5, 6)), 5),
    **dict.fromkeys((f"space_flight{level}" for level in range(1, 11)), 3),
    **dict.fromkeys((f"target_shooter{level}" for level in (1, 2, 3)), 6),
}
"""Numbers of actions of octax's games."""

_TWO_PLAYERS = (
    *("animal_shogi", "backgammon", "bridge_bidding", "chess", "connect_four", "gardner_chess", "go_9x9", "go_19x19"),
    *("hex", "kuhn_poker", "leduc_holdem", "othello", "shogi", "sparrow_mahjong", "tic_tac_toe"),
)
_SEVERAL_ACTIONS = (
    *("BinPack-v2", "Cleaner-v0", "Connector-v3", "FlatPack-v0", "JobShop-v0", "LevelBasedForaging-v0", "MMST-v0"),
    *("Minesweeper-v0", "RobotWarehouse-v0", "RubiksCube-partly-scrambled-v0", "RubiksCube-v0", "Sudoku-v0"),
    *("Sudoku-very-easy-v0", "Tetris-v0", "MultiCVRP-v0", "SearchAndRescue-v0"),
)

SUITES: Mapping[str, Suite] = {
    "xminigrid": Suite(
        {
            f"MiniGrid-{name}": Listed((3, 3, 2) if "Memory" in name else (7, 7, 2), "uint8", 6, limit, depth=13)
            for name, limit in _XMINIGRID.items()
        },
        "purejaxdqn[xminigrid]",
        {"XLand-*": "its tasks are downloaded, and nothing here downloads"},
    ),
    "jumanji": Suite(
        {
            "CVRP-v1": Listed((126,), "float32", 21, illegal=True),
            "Game2048-v1": Listed((4, 4), "uint8", 4, illegal=True, depth=18),
            "GraphColoring-v1": Listed((421,), "float32", 20, illegal=True),
            "Knapsack-v1": Listed((150,), "float32", 50, illegal=True),
            "Maze-v0": Listed((10, 10, 3), "bool", 4, 100, illegal=True),
            "PacMan-v1": Listed((1524,), "float32", 5, 1000, illegal=True),
            "SlidingTilePuzzle-v0": Listed((5, 5), "uint8", 4, 500, illegal=True, depth=25),
            "Snake-v1": Listed((12, 12, 5), "float32", 4, 4000, illegal=True),
            "TSP-v1": Listed((61,), "float32", 20, illegal=True),
        },
        "purejaxdqn[jumanji]",
        {
            "Sokoban-v0": "its levels are downloaded, and nothing here downloads",
            **dict.fromkeys(_SEVERAL_ACTIONS, "a step takes several actions; Q-learning needs one discrete action"),
        },
    ),
    "craftax": Suite(
        {
            "Craftax-Classic-Symbolic-v1": Listed((1345,), "float32", 17, 10_000),
            "Craftax-Classic-Pixels-v1": Listed((63, 63, 3), "uint8", 17, 10_000),
            "Craftax-Symbolic-v1": Listed((8268,), "float32", 43, 100_000),
            "Craftax-Pixels-v1": Listed((130, 110, 3), "uint8", 43, 100_000),
        },
        "purejaxdqn[craftax]",
    ),
    "pgx": Suite(
        {"2048": Listed((4, 4, 31), "bool", 4, illegal=True)},
        "purejaxdqn[pgx]",
        {
            "minatar-*": "it needs a package of its own; gymnax has the same games, as Breakout-MinAtar",
            **dict.fromkeys(_TWO_PLAYERS, "it is a game against others, and agents here play alone"),
        },
    ),
    "sparse": Suite(
        {
            "MountainCar": Listed((2,), "float32", 3, 200, solved_at=0.9),
            "CartPoleSwingUp": Listed((6,), "float32", 3, 500),
        },
        "purejaxdqn",
        ours=True,
    ),
    "octax": Suite(
        {name: Listed((32, 64, 4), "bool", actions, 4500) for name, actions in _OCTAX.items()},
        "purejaxdqn[octax]",
    ),
}
"""Suites by the names of their packages. ``suite:Name`` is looked up here before any module of the user's."""

LISTED: Mapping[str, Listed] = {
    **GYMNAX,
    **{f"{suite}:{name}": row for suite, one in SUITES.items() for name, row in one.environments.items()},
}
"""Every environment by its id."""


def suite_of(env_id: str) -> str | None:
    """The suite that ``suite:Name`` names; None for gymnax's and the user's own."""
    suite, colon, _ = env_id.partition(":")
    return suite if colon and suite in SUITES else None


def why_refused(suite: str, name: str) -> str | None:
    """Why an environment of a suite cannot be trained on; None if nothing is known against it."""
    for pattern, reason in SUITES[suite].refused.items():
        if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
            return reason
    return None


def nearest(env_id: str, suite: str | None = None) -> str:
    """A hint at the environment whose name is nearest: of a suite, or of all, which may be without their suite."""
    names = {one: one for one in LISTED if suite is None or suite_of(one) == suite}
    if suite is None:
        names |= {one.partition(":")[2]: one for one in LISTED if one not in GYMNAX}
    close = difflib.get_close_matches(env_id, names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def instead_of(module: str, name: str) -> str:
    """A hint at what ``module:name`` may stand for, if the module is none of the user's."""
    if module == "gymnax":
        return nearest(name)
    if module == "navix":
        return "; navix needs an adapter, which docs/own-suite.md has"
    close = difflib.get_close_matches(module.lower(), SUITES, n=1, cutoff=0.6)
    return nearest(f"{close[0]}:{name}", close[0]) or f"; did you mean the suite {close[0]!r}?" if close else ""
