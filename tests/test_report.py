"""The report: one file, whole, escaped, and with nothing to fetch; in a real browser too."""

import csv
import html
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from purejaxdqn import load_config
from purejaxdqn.pictures.report_films import _best_agent
from purejaxdqn.pictures.run_reports import _key_figures
from purejaxdqn.report import main

VOID = {"meta", "link", "img", "br", "hr", "input"}
NASTY = '<script>alert("1")</script>&"><img src=x>'


class Page(HTMLParser):
    """What a page is made of; raises on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags, self.rows, self.pictures = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        self.pictures += [value for name, value in attributes if name == "alt"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def run_with_report(finished_run, tmp_path_factory):
    """A run with a film in it, and its report."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("reported") / "run")
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(run / "episode.gif", save_all=True, append_images=frames[1:])
    assert main([str(run)]) == 0
    return run


@pytest.fixture
def sweep(tmp_path, finished_run):
    """A directory as a sweep leaves it."""
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["point", "seed_index", "optimizer.learning_rate", "note", "final_eval_return"])
        table.writerows([n, 0, 1e-3, NASTY, 100.1234567891 + n] for n in range(700))
    Image.new("RGB", (40, 30), "white").save(tmp_path / 'seeds "<b>.png')
    (tmp_path / "best.yaml").write_text(f"note: '{NASTY}'\n")
    (tmp_path / "best_retest.json").write_text(json.dumps({"iqm": 12.5, "returns": [1, 2]}))
    (tmp_path / "below").mkdir()
    shutil.copy(finished_run / "summary.json", tmp_path / "below")
    return tmp_path


def test_a_report_is_well_formed_and_fetches_nothing(run_with_report):
    page = Page((run_with_report / "report.html").read_text())
    assert page.addresses
    assert all(address.startswith("data:") for address in page.addresses)
    assert not {"script", "iframe", "object", "form", "a"} & set(page.tags)
    style = (run_with_report / "report.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_a_report_holds_config_curves_seeds_times_versions_and_the_film(run_with_report):
    text = (run_with_report / "report.html").read_text()
    page = Page(text)
    rows = {row[0]: row[1:] for row in page.rows}
    summary = json.loads((run_with_report / "summary.json").read_text())
    assert rows["optimizer.learning_rate"] == ["0.001", "0.00025"]
    assert rows["network.hidden"] == ["[16, 16]", "[120, 84]"]
    assert rows["gamma"] == ["0.99", ""]
    assert rows["env.params"] == ["{}", ""]
    for seed, score in enumerate(summary["final_eval_return"]):
        assert float(rows[str(seed)][0]) == pytest.approx(score, rel=1e-5)
    assert rows["compiling"] == [f"{summary['compile_seconds']:.1f} s"]
    assert rows["jax"] == [summary["versions"]["jax"]]
    kinds = [re.match(r"data:(image/\w+)", address).group(1) for address in page.addresses if len(address) > 10]
    assert kinds == ["image/png", "image/png", "image/gif"]
    assert "episode.gif" in page.text
    assert 'name="viewport"' in text


def test_a_report_of_a_run_in_which_a_seed_diverged_marks_it(run_with_report, tmp_path, quietly):
    run = shutil.copytree(run_with_report, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    del summary["summary_sha256"]
    summary |= {"diverged": [False, True, False], "final_eval_return": [1.0, None, 2.0], "iqm": None, "iqm_ci95": None}
    (run / "summary.json").write_text(json.dumps(summary))
    code, out, _ = quietly(main, run)
    assert (code, out) == (0, [str(run / "report.html")])
    text = (run / "report.html").read_text()
    assert text.count('<tr class="bad">') == 1
    assert "not finite" in text


def test_an_unfinished_run_can_be_reported_on_and_says_so(finished_run, tmp_path, quietly):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    for path in run.iterdir():
        if path.name not in ("config.yaml", "metrics.csv"):
            path.unlink()
    assert quietly(main, run)[0] == 0
    page = Page((run / "report.html").read_text())
    assert "Not finished: no summary.json. Step 600 so far." in page.text
    assert {"Curves", "Seeds", "Config"} <= set(page.text.split())
    assert "Times" not in page.text


def test_a_report_changes_nothing_else_and_is_written_again(run_with_report, tmp_path, quietly):
    run = shutil.copytree(run_with_report, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "report.html").write_text("old")
    assert quietly(main, run)[0] == 0
    after = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    there = str(run_with_report), str(run)
    assert after.pop("report.html").decode().replace(*reversed(there)) == before.pop("report.html").decode()
    assert after == before


def test_a_directory_report_shows_the_tables_and_pictures_it_finds(sweep, quietly):
    code, out, _ = quietly(main, sweep)
    assert (code, out) == (0, [str(sweep / "report.html")])
    text = (sweep / "report.html").read_text()
    page = Page(text)
    assert all(address.startswith("data:") for address in page.addresses)
    assert ["7", "0", "0.001", NASTY, "107.123"] in page.rows
    assert sum(row[3:4] == [NASTY] for row in page.rows) == 500
    assert "The first 500 of 700 rows." in page.text
    assert ["699", "0"] not in [row[:2] for row in page.rows]
    assert {"iqm": "12.5", "returns": "[1, 2]"}.items() <= {row[0]: row[-1] for row in page.rows}.items()
    assert "below" in [row[0] for row in page.rows]
    assert page.pictures == ['seeds "<b>.png'] == re.findall('seeds "<b>.png', page.text)
    assert "script" not in page.tags
    assert html.escape(NASTY) in text
    assert NASTY not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is not a directory"),
        (lambda folder: folder.write_text(""), "is not a directory"),
        (lambda folder: folder.mkdir(), "neither a run nor a directory with tables or pictures"),
        (lambda folder: _write(folder, {"metrics.csv": "seed_index\n", "config.yaml": ""}), "is not a run"),
        (lambda folder: _write(folder, {"best.json": "{"}), "is damaged"),
    ],
)
def test_what_cannot_be_reported_on_is_refused(make, message, tmp_path, quietly):
    make(tmp_path / "it")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = quietly(main, tmp_path / "it")
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert sorted(tmp_path.rglob("*")) == before


def _write(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; Debian: apt-get install chromium")


def browse(page, folder):
    """Open a page in headless Chromium -> its document, what it told the console, what it asked the network for.

    All of its requests go to a proxy of ours, which answers none.
    """
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def refuse(self):
            asked.append(self.path)
            self.send_error(403)

        do_GET = do_CONNECT = do_POST = do_HEAD = refuse

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run(
                [
                    CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
                    "--disable-default-apps", f"--user-data-dir={folder}", "--enable-logging=stderr",
                    f"--proxy-server=127.0.0.1:{server.server_port}", "--proxy-bypass-list=<-loopback>",
                    "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
                ],
                capture_output=True, text=True, timeout=120, check=True,
            )  # fmt: skip
        finally:
            server.shutdown()
            thread.join()
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


ITS_OWN = re.compile(r"^(http://)?(accounts|www|clients\d|update)\.google(apis)?\.com[:/]|\.gvt1\.com")
"""What this Chromium asks for with an empty page, too: time, accounts, updates of itself."""
OUTSIDE = "http://outside.invalid/picture.png"


@needs_chromium
def test_chromium_shows_a_report_without_an_error_and_without_a_request(run_with_report, sweep, tmp_path):
    main([str(sweep)])
    for number, page in enumerate((run_with_report / "report.html", sweep / "report.html")):
        document, console, asked = browse(page, tmp_path / f"profile{number}")
        assert document.count("<img") == page.read_text().count("<img")
        assert document.count("<tr") == page.read_text().count("<tr") > 10
        assert console == []
        assert [one for one in asked if not ITS_OWN.search(one)] == []


@needs_chromium
def test_the_browser_test_can_fail(tmp_path):
    """A page that asks for something and complains is noticed; with the report's own policy the request is stopped."""
    page = tmp_path / "page.html"
    page.write_text(f'<!DOCTYPE html><link rel="icon" href="data:,"><img src="{OUTSIDE}"><script>oh.no()</script>')
    _, console, asked = browse(page, tmp_path / "profile")
    assert OUTSIDE in asked
    assert "oh is not defined" in "".join(console)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', report_text(tmp_path)).group()
    page.write_text(page.read_text().replace("<link", f"{policy}<link"))
    _, console, asked = browse(page, tmp_path / "profile")
    assert OUTSIDE not in asked
    assert "Content Security Policy" in "".join(console)


def report_text(folder):
    _write(folder / "any", {"runs.csv": "a,b\n1,2\n"})
    main([str(folder / "any")])
    return (folder / "any" / "report.html").read_text()


def test_what_links_point_to_is_neither_embedded_nor_written_to(finished_run, tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "notes.csv").write_text("a\nSECRET\n")
    (secret / "summary.json").write_text('{"iqm": "SECRET"}')
    Image.new("RGB", (3, 3)).save(secret / "x.png")
    run, folder = shutil.copytree(finished_run, tmp_path / "run"), tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "own.csv").write_text("b\nours\n")
    (folder / "same.csv").symlink_to("own.csv")
    for name in ("notes.csv", "summary.json", "x.png"):
        (folder / name).symlink_to(secret / name)
    (folder / "notes.yaml").symlink_to(secret / "notes.csv")
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "runs").symlink_to(secret)
    (folder / "inner" / "summary.json").symlink_to(secret / "summary.json")
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(secret / "notes.csv")
    (folder / ".report.html.part").symlink_to(secret / "notes.csv")
    for place in (folder, run):
        assert main([str(place)]) == 0
        text = (place / "report.html").read_text()
        assert "SECRET" not in text
        assert "x.png" not in text
    assert "ours" in (folder / "report.html").read_text()
    assert "same.csv" in (folder / "report.html").read_text()
    assert (secret / "notes.csv").read_text() == "a\nSECRET\n"
    assert len(capsys.readouterr().err.splitlines()) == 7


def test_the_film_is_of_the_best_agent_that_has_not_diverged():
    assert _best_agent({"final_eval_return": [5.0, 10.0, 7.0], "diverged": [False, True, False]}) == 2
    assert _best_agent({"final_eval_return": [None, 10.0], "diverged": [False, True]}) == 0


def test_a_run_that_ended_early_is_reported_with_the_steps_that_it_took():
    figures = dict(_key_figures(load_config("cartpole"), {"final_eval_return": [500.0], "iqm": 500.0}, 34_000))
    assert figures["environment steps per seed"] == "34,000"
