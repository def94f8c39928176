"""The options of ``purejaxdqn.evaluate`` and ``purejaxdqn.export``, and the returns that ``evaluate`` prints."""

import argparse
from typing import Any

from purejaxdqn.system.faults import UserError
from purejaxdqn.system.files import to_json
from purejaxdqn.system.options import Parser, add_trust_option, path_of

FORMATS = ("stablehlo", "onnx", "safetensors")
MAX_EPISODES = 1_000_000
"""Episodes are played in parallel, so that memory limits their number."""


def evaluate_parser() -> Parser:
    """The command line of ``evaluate``."""
    parser = Parser(
        prog="python -m purejaxdqn.evaluate",
        description="Play a finished run's agents, or an exported policy, greedily.",
        examples=(
            "runs/mine",
            "runs/mine --episodes 30 --seed-index 0 --gif episode.gif",
            "runs/mine --backend gymnasium --json",
            "agents/breakout --gif breakout.gif",
        ),
    )
    folder = "a run directory, a folder that export wrote, or agents/NAME, a trained agent of the gallery"
    backend = "play in gymnax (JAX) or in Gymnasium, whose CartPole is independent code"
    parser.add_argument("folder", type=path_of, metavar="FOLDER", help=folder)
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes of each agent")
    parser.add_argument("--backend", choices=("gymnax", "gymnasium"), default="gymnax", help=backend)
    _add_agent_option(parser, default="all")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the episodes (default 0)")
    parser.add_argument("--gif", type=path_of, metavar="FILE", help="film an episode of agent K (or 0) as .gif or .mp4")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_trust_option(parser)
    return parser


def export_parser() -> Parser:
    """The command line of ``export``."""
    parser = Parser(
        prog="python -m purejaxdqn.export",
        description="Write one agent's policy to a folder.",
        examples=(
            "runs/mine --format onnx --best",
            "runs/mine --format stablehlo --seed-index 2 --out policy",
        ),
    )
    kind = "a program for JAX (stablehlo) or ONNX Runtime (onnx), or the weights alone (safetensors)"
    parser.add_argument("run_dir", type=path_of, metavar="RUN_DIR", help="a finished run")
    parser.add_argument("--format", required=True, choices=FORMATS, help=kind)
    which = parser.add_mutually_exclusive_group()
    _add_agent_option(which, default="0")
    which.add_argument("--best", action="store_true", help="the agent with the highest final greedy return")
    parser.add_argument("--out", type=path_of, metavar="DIR", help="default RUN_DIR/exports/FORMAT-K")
    add_trust_option(parser)
    return parser


def _add_agent_option(parser: Any, *, default: str) -> None:
    parser.add_argument("--seed-index", type=int, metavar="K", help=f"only agent K, from 0 (default {default})")


def check_evaluation(arguments: argparse.Namespace) -> None:
    """Refuse what the parser of ``evaluate`` accepts and the command does not."""
    if not 1 <= arguments.episodes <= MAX_EPISODES:
        raise UserError(f"--episodes: {arguments.episodes} must be from 1 to {MAX_EPISODES}")
    if not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed: {arguments.seed} must be from 0 to {2**32 - 1}")
    if arguments.gif:
        if arguments.backend != "gymnax":
            raise UserError("--gif: only episodes of gymnax can be drawn; leave out --backend gymnasium")
        from purejaxdqn.pictures.films import check_film

        check_film(arguments.gif)


def print_returns(arguments: argparse.Namespace, returns: Any) -> None:
    """Print the returns [S, N], as JSON or for a reader."""
    from purejaxdqn.runs.statistics import iqm, spread_in_words  # SciPy: late, as it loads slowly

    returns = returns.astype("float64")  # their sum may be beyond float32
    score = iqm(returns.mean(-1))
    if arguments.json:
        found = {"backend": arguments.backend, "episodes": arguments.episodes, "returns": returns.tolist()}
        print(to_json({**found, "mean": float(returns.mean()), "iqm": score}))
        return
    for k, mine in enumerate(returns, arguments.seed_index or 0):
        print(f"agent {k}: mean {mine.mean():.2f}, lowest {mine.min():g}, highest {mine.max():g}")
    scores = f"mean {returns.mean():.2f}, IQM {score:.2f}{spread_in_words(returns.mean(-1), digits='.2f')}"
    print(f"{arguments.backend}, {arguments.episodes} episodes an agent: {scores}")
