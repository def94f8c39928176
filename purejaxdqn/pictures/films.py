"""Writes an episode as a GIF or MP4 film, with step and return above each frame."""

import contextlib
import itertools
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw

from purejaxdqn.core.config import Config
from purejaxdqn.pictures.drawings import Drawing, choose_drawing, font
from purejaxdqn.policies.episodes import Episode, record_episode
from purejaxdqn.system.faults import UserError, require
from purejaxdqn.system.files import replacing

MAX_FRAMES = 300
"""Longer episodes are thinned out: every n-th step is drawn, and the last one."""
SUFFIXES = (".gif", ".mp4")
_HEADER, _LEAST_WIDTH = 30, 420
_INK, _PAPER = (230, 232, 236), (50, 55, 66)
_LAST_SECONDS = 1.5  # for which the last frame is shown


class Film(NamedTuple):
    """What a film shows."""

    frames: int  # number of frames
    stride: int  # environment steps from one frame to the next
    steps: int  # environment steps from the first frame to the last


def check_film(path: Path) -> None:
    """Check that a film can be written to ``path``, before an episode is played.

    Raises:
      UserError: the suffix is unknown, the file exists, its directory does not exist, or a package is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--gif: {path} must end in {' or '.join(SUFFIXES)}")
    try:
        exists, has_parent = path.exists(), path.parent.is_dir()
    except OSError as error:
        raise UserError(f"--gif: {path} cannot be written: {error.strerror}") from error
    if exists:
        raise UserError(f"--gif: {path} exists; films are never overwritten")
    if not has_parent:
        raise UserError(f"--gif: there is no directory {path.parent}")
    if path.suffix.lower() == ".mp4":
        require("--gif with .mp4", "imageio_ffmpeg", install="purejaxdqn[video]")


def film_episode(
    path: Path, config: Config, params: Any, seed_index: int, *, seed: int, steps: int | None = None
) -> str:
    """Play and draw a greedy episode of the first agent in ``params``, and describe it.

    Args:
      path: the file to write; its suffix is one of ``SUFFIXES``.
      config: the agent's.
      params: a PyTree of parameters with a leading axis of agents.
      seed_index: the agent's number in its run, for the description.
      seed: of the episode.
      steps: draw only this many first steps of the episode; by default all.
    """
    episode = record_episode(config, jax.tree.map(lambda leaf: leaf[0], params), seed=seed)
    film = write_film(path, episode, config, seed_index=seed_index, steps=steps)
    skipped = f", one in {film.stride} steps" if film.stride > 1 else ""
    shown = f" of its first {film.steps} steps" if film.steps < len(episode.rewards) else ""
    return (
        f"{path}: agent {seed_index}, return {episode.rewards.sum():g} in {len(episode.rewards)} steps, "
        f"{episode.ending}; {film.frames} frames{shown}{skipped}"
    )


def write_film(path: Path, episode: Episode, config: Config, *, seed_index: int, steps: int | None = None) -> Film:
    """Write an episode to ``path``, as a GIF or MP4 by its suffix.

    Args:
      path: the file to write; its suffix is one of ``SUFFIXES``.
      episode: the episode.
      config: the config of the run.
      seed_index: number of the agent, for the title.
      steps: draw only this many first steps of the episode; by default all.

    Raises:
      UserError: the file cannot be written.
    """
    last = len(episode.rewards) if steps is None else min(steps, len(episode.rewards))
    stride = math.ceil(last / MAX_FRAMES)
    shown_steps = sorted({*range(0, last + 1, stride), last})
    drawing = choose_drawing(config, episode.obs)
    frames = _frames(episode, drawing, shown_steps, title=f"{config.env.id}, agent {seed_index}")
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    try:
        with replacing(path) as part:
            write(part, frames, drawing.fps)
    except OSError as error:
        raise UserError(f"--gif: {path} cannot be written: {error.strerror or error}") from error
    return Film(len(shown_steps), stride, last)


def _frames(episode: Episode, drawing: Drawing, shown_steps: list[int], *, title: str) -> Iterator[Image.Image]:
    """Yield a frame for each number of steps in ``shown_steps``; 0 is the start of the episode."""
    returns = np.concatenate([[0.0], np.cumsum(episode.rewards)])
    last = len(episode.states) - 1
    for step in shown_steps:
        picture = drawing.draw(episode.obs[step], episode.states[min(step, last)])
        yield _with_header(picture, title, f"step {step}   return {returns[step]:.6g}")


def _with_header(picture: Image.Image, title: str, score: str) -> Image.Image:
    """Add a line of text above an image, and make its sides even, as H.264 requires."""
    width = max(picture.width, _LEAST_WIDTH)
    height = picture.height + _HEADER
    frame = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
    frame.paste(picture, ((width - picture.width) // 2, _HEADER))
    pen = ImageDraw.Draw(frame)
    pen.text((8, _HEADER // 2), title, fill=_INK, font=font(14), anchor="lm")
    pen.text((frame.width - 8, _HEADER // 2), score, fill=_INK, font=font(14), anchor="rm")
    return frame


def _write_gif(path: Path, frames: Iterator[Image.Image], fps: int) -> None:
    first, *rest = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
    durations = [round(1000 / fps, -1)] * len(rest) + [1000 * _LAST_SECONDS]
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def _write_mp4(path: Path, frames: Iterator[Image.Image], fps: int) -> None:
    """Pipe the frames into imageio-ffmpeg's ffmpeg binary.

    Its ``write_frames`` is not used, because it forks this process, in which JAX runs threads.
    """
    import imageio_ffmpeg

    first = next(frames)
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{first.width}x{first.height}", "-r", str(fps), "-i", "-",
        "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-f", "mp4", "-y", str(path.absolute()),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ffmpeg stopped, and says why on standard error
            frame = first
            for frame in itertools.chain([first], frames):
                process.stdin.write(frame.tobytes())
            process.stdin.write(frame.tobytes() * (round(_LAST_SECONDS * fps) - 1))
        _, message = process.communicate()
    if process.returncode:
        raise OSError((message.decode(errors="replace").splitlines() or ["ffmpeg failed"])[-1])
