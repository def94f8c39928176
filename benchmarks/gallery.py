"""Trains the gallery: an agent for every environment that has a config which learns, exported to `agents/NAME`.

Of a game in several sizes or suites, one has an agent.

Each config is trained by the command (`purejaxdqn.train`), with as many seeds and steps as `AGENTS` says. The agent
with the **median** greedy return at the end of the run is exported, and not the best one (with an even number of seeds
the lower of the two in the middle; among equals the first). `agents/NAME` has its weights, its card (`README.md`,
`policy.json`) and a small film of the first steps of the episode with seed 0. The weights have half precision, but
for a game without chance, where rounding them changes every episode alike. All files are under 6 MB together.

    python -m benchmarks.gallery              trains missing agents, small environments first: about two hours
    python -m benchmarks.gallery catch pong   only these; it can be stopped, and resumes where it was
    python -m benchmarks.gallery --list       lists the agents, and which exist
    python -m benchmarks.gallery --again pong makes an agent again that exists, of the run in --runs if that is finished
    python -m benchmarks.gallery --films      films all agents that exist again, or those that are named
    python -m benchmarks.gallery --quick      under a minute: one agent in a directory that is removed

`agents/gallery.csv` has a row for each agent: what trained it, the greedy return of every seed, and which was taken.
"""

import csv
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

AGENTS_DIRECTORY = harness.ROOT / "agents"
TABLE = "gallery.csv"
SIZE_LIMIT = 6_000_000
"""Bytes of all agents together."""
FILM_LIMIT = 110_000
"""Bytes of a film; it is cut after as many frames as this holds."""
FILM_STEPS = 150
"""Environment steps of a film at most, one frame each, so that every movement and all of a short episode show."""
SEED = 2028
"""Config key ``seed`` of every agent; no search and no row of ``learning.py`` uses it."""


class Agent(NamedTuple):
    """What trains an agent."""

    config: str  # a shipped config
    seeds: int = 5
    overrides: tuple[str, ...] = ()
    half: bool = True  # whether the weights have half precision

    @property
    def words(self) -> tuple[str, ...]:
        """The overrides of the command."""
        return (f"seed={SEED}", f"num_seeds={self.seeds}", *self.overrides)

    @property
    def command(self) -> str:
        """The command, for a reader."""
        return shlex.join(["python", "-m", "purejaxdqn.train", "--config", self.config, *self.words])


_SHORT = ("total_timesteps=2_998_272",)
"""Of the configs of MinAtar without replay, which are of ten million steps."""

AGENTS: dict[str, Agent] = {
    "cartpole": Agent("cartpole_pqn"),
    "acrobot": Agent("acrobot"),
    "mountaincar": Agent("mountaincar"),
    "catch": Agent("catch"),
    "discounting_chain": Agent("discounting_chain"),
    "umbrella_chain": Agent("umbrella_chain"),
    "memory_chain": Agent("memory_chain", seeds=3),
    "bernoulli_bandit": Agent("bernoulli_bandit"),
    "deepsea": Agent("deepsea"),
    "frozen_lake": Agent("frozen_lake"),
    "four_rooms": Agent("four_rooms", seeds=3),
    "breakout": Agent("minatar/breakout_pqn", seeds=3, overrides=_SHORT),
    "mountaincar_sparse": Agent("mountaincar_sparse", seeds=3),
    "asterix": Agent("minatar/asterix_pqn", seeds=3, overrides=_SHORT),
    "space_invaders": Agent("minatar/space_invaders_pqn", seeds=3, overrides=_SHORT, half=False),  # has no chance in it
    "freeway": Agent("minatar/freeway_pqn", seeds=3, overrides=_SHORT),
    "seaquest": Agent("minatar/seaquest_pqn", seeds=3, overrides=_SHORT),
    "meta_maze": Agent("meta_maze", seeds=3),
    "pong": Agent("pong", seeds=3, overrides=("network.hidden=[32]", "total_timesteps=500_000")),  # 3,600 inputs
    "empty_5x5": Agent("xminigrid/empty_5x5", seeds=3),
    "swingup": Agent("swingup", seeds=3),
    "snake_6x6": Agent("jumanji/snake_6x6", seeds=3),
    "doorkey_5x5": Agent("xminigrid/doorkey_5x5", seeds=3),
    "2048": Agent("pgx/2048", seeds=3, overrides=("total_timesteps=1_998_848",)),
    "brix": Agent("octax/brix", seeds=3, overrides=("network.hidden=[32]",)),  # 2,688 inputs after the convolutions
    "craftax": Agent(
        "craftax/classic_symbolic", seeds=3, overrides=("network.hidden=[64,64]", "total_timesteps=1_998_848")
    ),  # 1,345 inputs
}
"""In the order in which they are trained."""
COLUMNS = ("agent", "environment", "command", "env_steps", "returns", "seed_index", "return")


def main() -> None:
    parser = harness.Options(__doc__)
    parser.add_argument("agents", nargs="*", choices=[*AGENTS, []], metavar="NAME", help="which (default all)")
    parser.add_argument("--list", action="store_true", help="list the agents, and which exist")
    parser.add_argument("--again", action="store_true", help="make agents again that exist")
    parser.add_argument("--films", action="store_true", help="film agents again that exist")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"), help="for the runs (default runs/gallery)")
    parser.add_argument("--quick", action="store_true", help="a small agent, nothing kept")
    arguments = parser.parse_args()
    if arguments.list:
        for name, agent in AGENTS.items():
            print(f"{'x' if is_there(AGENTS_DIRECTORY / name) else ' '} {name:<20} {agent.command}")
    elif arguments.films:
        for row in read_rows():
            if row["agent"] in (arguments.agents or AGENTS):
                film(AGENTS_DIRECTORY / row["agent"])
        check_size(AGENTS_DIRECTORY)
    elif arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            quick = Agent("catch", seeds=3, overrides=("total_timesteps=20_000",))
            print(add("catch", quick, Path(folder) / "agents", Path(folder) / "runs"))
    else:
        runs = arguments.runs.resolve()
        wanted = [
            name for name in arguments.agents or AGENTS if arguments.again or not is_there(AGENTS_DIRECTORY / name)
        ]
        if wanted and harness.commit().endswith("-dirty"):
            print("the tree has changes that are not committed: the cards will name this", file=sys.stderr)
        for name in wanted:  # all before the first export, which changes the tree whose commit a run records
            train(name, AGENTS[name], runs)
        for name in wanted:
            print(add(name, AGENTS[name], AGENTS_DIRECTORY, runs), flush=True)
        check_size(AGENTS_DIRECTORY)


def is_there(folder: Path) -> bool:
    """Whether a folder of the gallery is complete; the film is written last."""
    return film_of(folder).is_file()


def film_of(folder: Path) -> Path:
    """The film in a folder of the gallery; its name is the agent's, so that no two films share one on the site."""
    return folder / f"{folder.name}.gif"


def train(name: str, agent: Agent, runs: Path) -> dict[str, Any]:
    """Train an agent or resume it; returns the summary, at once if the run is finished."""
    return harness.train([agent.config], agent.words, runs / name)


def add(name: str, agent: Agent, gallery: Path, runs: Path) -> str:
    """Train an agent if need be, export the median seed to ``gallery/name``, and film it; returns a line about it."""
    summary = train(name, agent, runs)
    seed_index = median_seed(summary["final_eval_return"])
    gallery.mkdir(parents=True, exist_ok=True)
    folder = gallery / name
    shutil.rmtree(folder, ignore_errors=True)
    half = ("--half",) if agent.half else ()
    _command("export", runs / name, "--format", "safetensors", *half, "--seed-index", seed_index, "--out", folder)
    film(folder)
    write_row(gallery / TABLE, name, agent, summary, seed_index)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{name}: {summary['final_eval_return'][seed_index]:g}, agent {seed_index}, {size:,} bytes"


def median_seed(returns: Sequence[float | None]) -> int:
    """The seed whose return is the median: of two in the middle the lower one, of equals the first.

    A seed without a return, which has diverged, counts as the lowest.
    """
    numbers = [float("-inf") if value is None else value for value in returns]
    return numbers.index(sorted(numbers)[(len(numbers) - 1) // 2])


def film(folder: Path) -> None:
    """Film the agent in a folder of the gallery."""
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "film.gif"
        _command("evaluate", folder, "--episodes", 1, "--gif", large, "--gif-steps", FILM_STEPS)
        shrink(large, film_of(folder))


def _command(name: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", f"purejaxdqn.{name}", *map(str, arguments)],
        cwd=harness.ROOT, env=harness.clean_environment(), check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def shrink(film: Path, small: Path, *, width: int = 280, limit: int = FILM_LIMIT) -> None:
    """Write a smaller copy of a GIF: ``width`` pixels wide, and as many of its first frames as ``limit`` bytes hold.

    The last frame shows for as long as that of the GIF. All frames share one palette, as pixels that do not change from
    one frame to the next then take no room.
    """
    from PIL import Image, ImageSequence

    with Image.open(film) as whole:
        frames, durations = [], []
        for frame in ImageSequence.Iterator(whole):
            durations.append(frame.info["duration"])
            size = width, round(frame.height * width / frame.width)
            frames.append(frame.convert("RGB").resize(size, Image.Resampling.BOX))
    samples = [*frames[:: max(1, len(frames) // 8)], frames[-1]]
    montage = Image.new("RGB", (width, frames[0].height * len(samples)))
    for at, sample in enumerate(samples):
        montage.paste(sample, (0, frames[0].height * at))
    palette = montage.quantize(48, dither=Image.Dither.NONE)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]

    def written(count: int) -> int:
        times = [*durations[: count - 1], durations[-1]]
        drawn[0].save(small, save_all=True, append_images=drawn[1:count], duration=times, loop=0, optimize=True)
        return small.stat().st_size

    fits, too_many = 1, len(drawn) + 1
    while too_many - fits > 1:
        count = (fits + too_many) // 2 if too_many <= len(drawn) else len(drawn)
        fits, too_many = (count, too_many) if written(count) <= limit else (fits, count)
    written(fits)


def write_row(path: Path, name: str, agent: Agent, summary: dict, seed_index: int) -> None:
    """Put the row of an agent into the gallery's table, in the order of ``AGENTS``."""
    rows = {row["agent"]: row for row in read_rows(path)}
    returns = summary["final_eval_return"]
    cells = (
        name,
        summary["env_id"],
        agent.command,
        summary["total_timesteps"],
        json.dumps(returns),
        seed_index,
        returns[seed_index],
    )
    rows[name] = dict(zip(COLUMNS, cells, strict=True))
    order = [*(one for one in AGENTS if one in rows), *(one for one in rows if one not in AGENTS)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[one] for one in order)


def read_rows(path: Path = AGENTS_DIRECTORY / TABLE) -> list[dict[str, str]]:
    """The rows of the gallery's table; none if there is no table."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def total_size(gallery: Path) -> int:
    """Bytes of all files of a gallery."""
    return sum(path.stat().st_size for path in gallery.rglob("*") if path.is_file())


def check_size(gallery: Path) -> None:
    """Print the size of a gallery, and end with code 1 if it is too large."""
    size = total_size(gallery)
    print(f"{size:,} bytes together")
    if size > SIZE_LIMIT:
        sys.exit(f"more than {SIZE_LIMIT:,}")


def page() -> str:
    """The agents as a page of the site: film, score, seeds, and the command that trained each."""
    return "\n".join(_sections(read_rows()))


def _sections(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    for row in rows:
        name, returns = row["agent"], json.loads(row["returns"])
        others = ", ".join("none" if value is None else f"{value:.4g}" for value in returns)
        yield f"## {name}\n"
        yield f"![A greedy episode of {name}](../agents/{name}/{name}.gif)\n"
        yield f"`{row['environment']}`, {int(row['env_steps']):,} environment steps. Greedy returns of its seeds: "
        yield f"{others}; this is agent {row['seed_index']}, with {float(row['return']):.4g}.\n"
        yield f"```bash\n{row['command']}\npurejaxdqn evaluate agents/{name}\n```\n"


if __name__ == "__main__":
    main()
