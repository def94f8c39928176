"""``python -m purejaxdqn.evaluate FOLDER``: play greedy episodes with a run's agents or an exported policy."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from purejaxdqn.policies.command_line import evaluate_parser as parser
from purejaxdqn.system.faults import UserError, run_command
from purejaxdqn.system.files import to_json
from purejaxdqn.system.messages import in_figures, tell
from purejaxdqn.system.status import Status

MAX_EPISODES = 1_000_000
"""Episodes are played in parallel, so that memory limits their number."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    with Status("starting", quiet=arguments.json):
        from purejaxdqn.policies import policies
        from purejaxdqn.system import runtime

        runtime.configure_cpu()
        runtime.start_jax()
        runtime.use_compilation_cache()
    with Status("loading the agents", quiet=arguments.json):
        config, params = policies.load_agents(arguments.folder, seed_index=arguments.seed_index, trust=arguments.trust)
        if arguments.gif:
            from purejaxdqn.pictures import drawings, films

            drawings.check_drawable(config)
    play = policies.evaluate_policy if arguments.backend == "gymnax" else policies.evaluate_in_gymnasium
    with Status("compiling and playing", quiet=arguments.json):
        returns = play(config, params, episodes=arguments.episodes, seed=arguments.seed)
    print_returns(arguments, returns)
    if arguments.gif:
        with Status("drawing the film", quiet=arguments.json):
            said = films.film_episode(
                arguments.gif, config, params, arguments.seed_index or 0, seed=arguments.seed, steps=arguments.gif_steps
            )
        tell(said)
    return 0


def _check(arguments: Namespace) -> None:
    """Refuse what the parser of ``evaluate`` accepts and the command does not."""
    if not 1 <= arguments.episodes <= MAX_EPISODES:
        raise UserError(f"--episodes: {arguments.episodes} must be from 1 to {MAX_EPISODES}")
    if not 0 <= arguments.seed < 2**32:
        raise UserError(f"--seed: {arguments.seed} must be from 0 to {2**32 - 1}")
    if arguments.gif_steps is not None:
        if not arguments.gif:
            raise UserError("--gif-steps: needs --gif FILE")
        if arguments.gif_steps < 1:
            raise UserError(f"--gif-steps: {arguments.gif_steps} must be 1 or more")
    if arguments.gif:
        if arguments.backend != "gymnax":
            raise UserError("--gif: only episodes of gymnax can be drawn; leave out --backend gymnasium")
        from purejaxdqn.pictures.films import check_film

        check_film(arguments.gif)


def print_returns(arguments: Namespace, returns: Any) -> None:
    """Print the returns [S, N], as JSON or for a reader."""
    from purejaxdqn.runs.statistics import iqm, spread_in_words  # SciPy: late, as it loads slowly

    returns = returns.astype("float64")  # their sum may be beyond float32
    score = iqm(returns.mean(-1))
    if arguments.json:
        found = {"backend": arguments.backend, "episodes": arguments.episodes, "returns": returns.tolist()}
        print(to_json({**found, "mean": float(returns.mean()), "iqm": score}))
        return
    for k, mine in enumerate(returns, arguments.seed_index or 0):
        print(f"agent {k}: mean {in_figures(mine.mean())}, lowest {mine.min():g}, highest {mine.max():g}")
    scores = f"mean {in_figures(returns.mean())}, IQM {in_figures(score)}{spread_in_words(returns.mean(-1))}"
    print(f"{arguments.backend}, {arguments.episodes} episodes an agent: {scores}")


if __name__ == "__main__":
    run_command(main)
