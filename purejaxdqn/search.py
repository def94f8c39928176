"""``python -m purejaxdqn.search --config CONFIG --space FILE --trials N``: Bayesian search, a batch at a time."""

import contextlib
from collections.abc import Sequence, Set
from pathlib import Path

import purejaxdqn.system.imports  # noqa: F401  (first)
from purejaxdqn.config.reading import read_config
from purejaxdqn.config.shipped import note_of_default_environment
from purejaxdqn.core.config import Config
from purejaxdqn.searches.command_line import parser, read_spec
from purejaxdqn.searches.spec import SearchSpec, check_edges, read_edges
from purejaxdqn.sweeps.points import describe_moves, find_idle_keys
from purejaxdqn.system.directories import default_directory, how_to_resume
from purejaxdqn.system.faults import drawing, resumable, run_command
from purejaxdqn.system.messages import announce, counted, in_figures, tell
from purejaxdqn.system.runtime import configure_cpu_for, start_jax, use_compilation_cache
from purejaxdqn.system.status import Status


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_intermixed_args(argv)
    spec = read_spec(arguments)
    candidates, drafts = read_edges(spec)
    configure_cpu_for(*(draft.config for draft in drafts), runs=spec.seeds * spec.batch, devices=spec.devices)
    with Status("checking the space", quiet=spec.quiet):
        start_jax()
        idle = find_idle_keys(check_edges(spec, candidates, drafts), spec.overrides)
    base = read_config(list(spec.sources), spec.overrides)
    moves = [base.moves, *describe_moves(draft for draft in drafts if draft.moves != base.moves)]
    announce([note_of_default_environment(base.config), *moves], idle)
    if not arguments.no_cache:
        use_compilation_cache()
    with contextlib.ExitStack() as made:
        folder = spec.out or made.enter_context(default_directory(["search", *spec.sources]))
        return search(spec, base.config, folder, said={draft.moves for draft in [base, *drafts]})


def search(spec: SearchSpec, base: Config, folder: Path, *, said: Set[str]) -> int:
    """Run the search, draw its pictures and print its table; returns the exit code."""
    with Status("loading Optuna", quiet=spec.quiet):
        from purejaxdqn.searches.directory import SEARCH_FILE
        from purejaxdqn.searches.runner import most_common_reason, run_search
        from purejaxdqn.searches.tables import table

    with resumable(how_to_resume(folder), label=folder / SEARCH_FILE):
        study, best, retest = run_search(spec, base, folder, said=said)
    if best is None or retest is None:
        tell(f"every trial failed; most often: {most_common_reason(study)}")
        return 3

    with drawing(folder), Status("drawing", quiet=spec.quiet):
        from purejaxdqn.pictures.searches import draw_search  # Matplotlib: late, as it loads slowly

        draw_search(folder, study, spec.space, objective=spec.objective)
    print(table(study))
    from purejaxdqn.runs.statistics import spread_in_words  # SciPy: late, as it loads slowly

    around = spread_in_words(retest["final_eval_return"])
    score = "not finite" if retest["iqm"] is None else f"{in_figures(retest['iqm'])}{around}"
    print(f"trial {best.number} on {counted(spec.retest, 'fresh seed')}: greedy return {score}")
    print(folder)
    return 0


if __name__ == "__main__":
    run_command(main)
