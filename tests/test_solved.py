"""Time to a solved agent: what the script sees of a run that is under way."""

from benchmarks import solved


def test_only_whole_lines_of_metrics_are_seen_and_each_once(tmp_path):
    path = tmp_path / "metrics.csv"
    watch = solved.watch_metrics(path)
    assert next(watch) == []
    path.write_text("seed_index,env_step,eval_return\n")
    assert next(watch) == []
    path.write_text("seed_index,env_step,eval_return\n0,500,9.5\n0,1000,47")
    assert next(watch) == [(500, 9.5)]
    path.write_text("seed_index,env_step,eval_return\n0,500,9.5\n0,1000,475.5\n")
    assert next(watch) == [(1000, 475.5)]
    assert next(watch) == []


def test_only_whole_lines_of_a_report_are_seen_and_each_once(tmp_path):
    path = tmp_path / "report"
    watch = solved.watch_report(path)
    assert next(watch) == []
    path.write_text("5000 20.5\n10000 4")
    assert next(watch) == [(5000, 20.5)]
    path.write_text("5000 20.5\n10000 480.0\n")
    assert next(watch) == [(10000, 480.0)]


def test_a_seed_that_is_never_solved_counts_as_endless():
    point = solved.Point
    curves = [[point(1.0, 500, 20.0), point(2.0, 1000, 480.0)], [point(1.5, 500, 30.0)], [point(3.0, 500, 20.0)]]
    row = solved.summarise("purejaxdqn", curves)
    assert row["solved"] == "1 of 3"
    assert (row["quickest"], row["seconds (median)"], row["slowest"]) == (2.0, float("inf"), float("inf"))
    assert row["first evaluation after (s)"] == 1.5
    assert row["steps (median)"] == "1,000"


def test_no_two_lines_of_the_picture_look_alike(monkeypatch):
    seen = []
    monkeypatch.setattr(solved, "save", lambda figure, name: seen.extend(figure.axes[0].get_lines()))
    solved.draw({name: [[solved.Point(1.0, 5_000, 480.0)]] for name in solved.CONTENDERS})
    lines = {one.get_label(): one for one in seen if one.get_label() in solved.CONTENDERS}
    looks = {(one.get_color(), one.get_linestyle(), one.get_linewidth(), one.get_alpha()) for one in lines.values()}
    assert len(looks) == len(lines) == len(solved.CONTENDERS)
