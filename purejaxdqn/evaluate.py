"""``python -m purejaxdqn.evaluate FOLDER``: play greedy episodes with a run's agents or an exported policy."""

from collections.abc import Sequence

from purejaxdqn.policies.command_line import check_evaluation, print_returns
from purejaxdqn.policies.command_line import evaluate_parser as parser
from purejaxdqn.system.faults import run_command
from purejaxdqn.system.messages import tell
from purejaxdqn.system.status import Status


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    check_evaluation(arguments)
    from purejaxdqn.policies import policies
    from purejaxdqn.system import runtime

    runtime.configure_cpu()
    runtime.start_jax()
    runtime.use_compilation_cache()
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
            said = films.film_episode(arguments.gif, config, params, arguments.seed_index or 0, seed=arguments.seed)
        tell(said)
    return 0


if __name__ == "__main__":
    run_command(main)
