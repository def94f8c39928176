"""The options of ``purejaxdqn.evaluate`` and ``purejaxdqn.export``."""

from typing import Any

from purejaxdqn.system.options import Parser, add_trust_option, path_of

FORMATS = ("stablehlo", "onnx", "safetensors")


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
    backend = (
        "gymnax plays in the run's own JAX environment, gymnasium in Gymnasium, whose CartPole is independent code"
    )
    parser.add_argument("folder", type=path_of, metavar="FOLDER", help=folder)
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes of each agent")
    parser.add_argument("--backend", choices=("gymnax", "gymnasium"), default="gymnax", help=backend)
    _add_agent_option(parser, default="all")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the episodes")
    parser.add_argument("--gif", type=path_of, metavar="FILE", help="film an episode of agent K (or 0) as .gif or .mp4")
    parser.add_argument("--gif-steps", type=int, metavar="N", help="film only its first N steps (default all)")
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
    half = "write the weights in half precision, in half the bytes; only with --format safetensors"
    parser.add_argument("--half", action="store_true", help=half)
    parser.add_argument("--out", type=path_of, metavar="DIR", help="default RUN_DIR/exports/FORMAT-K")
    add_trust_option(parser)
    return parser


def _add_agent_option(parser: Any, *, default: str) -> None:
    parser.add_argument("--seed-index", type=int, metavar="K", help=f"only agent K, from 0 (default {default})")
