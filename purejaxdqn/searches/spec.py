"""What a search is, and the checks that come before JAX starts and before anything is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purejaxdqn.config.reading import Draft
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.sweeps.points import Candidate, Point, candidate_of, check_points, read_points, refuse_both
from purejaxdqn.sweeps.spaces import Choices, Space, corner, plain_space
from purejaxdqn.system.faults import UserError


class SearchSpec(NamedTuple):
    """A search as the command line describes it."""

    sources: tuple[str, ...]  # configs
    overrides: tuple[str, ...]
    space: Space
    trials: int
    seeds: int  # of each trial
    batch: int  # trials at a time
    halving: tuple[int, int] | None  # factor, rungs
    sampler: str
    objective: str
    retest: int  # fresh seeds for the best point
    storage: str | None
    study: str
    out: Path | None
    memory: int | None
    devices: int | None
    quiet: bool


def define(spec: SearchSpec, base: Config) -> dict[str, Any]:
    """What makes a search different from others, as plain values."""
    return {
        "config": base.model_dump(mode="json"),
        "space": plain_space(spec.space),
        "seeds": spec.seeds,
        "objective": spec.objective,
        "halving": list(spec.halving) if spec.halving else None,
    }


def read_edges(spec: SearchSpec) -> tuple[list[Candidate], list[Draft]]:
    """The points with one value at an edge of its range and the others at their first; does not start JAX.

    Raises:
      UserError: a key is set twice, or a value is wrong by itself. (If a value only does not fit others, its trials
        fail, and the search continues.)
    """
    refuse_both(spec.overrides, spec.space, how="searched")
    if "num_seeds" in (*spec.space, *(word.partition("=")[0] for word in spec.overrides)):
        raise UserError("num_seeds: a search takes its seeds from --seeds")
    first = corner(spec.space)
    edges = [
        {**first, key: value}
        for key, values in spec.space.items()
        for value in (values.values if isinstance(values, Choices) else (values.low, values.last))
    ]
    candidates = [candidate_of(spec.sources, spec.overrides, values) for values in [first, *edges]]
    drafts = read_points(candidates)
    faults = [f"{fault.key}: {fault.message}" for draft in drafts for fault in draft.faults]
    if faults:
        raise UserError(*dict.fromkeys(faults))
    return candidates, drafts


def check_edges(spec: SearchSpec, candidates: Sequence[Candidate], drafts: Sequence[Draft]) -> list[Point]:
    """The points of ``read_edges`` that can be trained.

    Raises:
      UserError: no point can be trained, or one does not fit in memory or has no room for the rungs.
    """
    refused: list[UserError] = []
    points: list[Point] = []
    for candidate, draft in zip(candidates, drafts, strict=True):
        try:
            points += check_points([candidate], [draft])
        except UserError as error:
            refused.append(error)
    if len(refused) == len(candidates):
        raise refused[0]
    _check_machine(spec, points)
    return points


def _check_machine(spec: SearchSpec, points: Sequence[Point]) -> None:
    from purejaxdqn.runs.memory import check_results, state_bytes
    from purejaxdqn.searches.halving import Halving, check_room, check_rungs
    from purejaxdqn.sweeps.pieces import all_runs, plan_work

    epochs = make_plan(points[0].config).epochs
    check_results(min(spec.batch, spec.trials) * spec.seeds, epochs, option="--batch, --seeds")
    check_results(spec.retest, epochs, option="--retest")

    plan_work(points, all_runs(points, 1), devices=spec.devices, memory=spec.memory, size=1)
    if spec.halving:
        for point in points:
            check_rungs(Halving(*spec.halving), point.config)
        largest = max(state_bytes(point.config) for point in points)
        check_room([largest] * min(spec.batch, spec.trials), seeds=spec.seeds, memory=spec.memory)
