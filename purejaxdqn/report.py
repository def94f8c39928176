"""``python -m purejaxdqn.report DIR``: write a self-contained ``report.html`` about a run, a sweep or a search."""

from collections.abc import Sequence

from purejaxdqn.system.faults import run_command
from purejaxdqn.system.options import Parser, add_trust_option, path_of
from purejaxdqn.system.status import Status


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m purejaxdqn.report",
        description="Write report.html, one page with all results of a run, sweep or search.",
        examples=("runs/mine", "runs/mine --no-films"),
    )
    parser.add_argument("folder", type=path_of, metavar="DIR", help="directory of a run, sweep or search")
    films = "leave films out; by default, a film is made for a finished run that has none"
    parser.add_argument("--no-films", action="store_true", help=films)
    add_trust_option(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)

    films = not arguments.no_films
    with Status("starting"):
        from purejaxdqn.pictures.report_films import lacks_film
        from purejaxdqn.pictures.reports import write_report

        if films and lacks_film(arguments.folder):
            from purejaxdqn.system import runtime

            runtime.configure_cpu()
            runtime.start_jax()
            runtime.use_compilation_cache()
    with Status("writing the report"):
        path = write_report(arguments.folder, films=films, trust=arguments.trust)
    print(path)
    return 0


if __name__ == "__main__":
    run_command(main)
