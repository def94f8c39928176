"""Drawings of a moment in an environment: ``draw(obs, state) -> picture``, one function for each kind of environment.

classic control    Gymnasium's own picture, after the observation
grid worlds        the map with the agent on it
images             a colour for each channel
anything else      a bar for each number
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from purejaxdqn.core.config import Config
from purejaxdqn.environments.registry import underlying_environment
from purejaxdqn.system.faults import require

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
_SIDE = 400  # pixels of the longer side of a picture, about
_MAX_BARS = 40
_DARK, _LIGHT, _PALE = (24, 27, 33), (240, 240, 236), (205, 208, 214)
_AGENT, _GOAL, _HOLE = (31, 95, 168), (64, 156, 92), (90, 140, 190)
_CHANNELS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
    (170, 170, 170), (148, 103, 189), (255, 255, 255),
)  # fmt: skip

Draw = Callable[[np.ndarray, Any], Image.Image]
"""An observation [O] and the state before the step from it (the last one again at the end) -> a picture."""


class Drawing(NamedTuple):
    """How to draw an environment."""

    draw: Draw
    fps: int  # pictures a second


def check_drawable(config: Config) -> None:
    """Refuse what needs a library that is not there."""
    if config.env.id in CLASSIC:
        require(f"drawing {config.env.id}", "pygame", install="purejaxdqn[video]")


def choose_drawing(config: Config, obs: np.ndarray) -> Drawing:
    """The drawing that suits an environment.

    Args:
      config: the run's.
      obs: [T, O] all observations to be drawn, which set the scale of bars and shades.
    """
    env_id, shape = config.env.id, obs.shape[1:]
    if env_id in CLASSIC:
        return Drawing(_classic(config), fps=30)
    if env_id == "FrozenLake-misc":
        return Drawing(_frozen_lake(config), fps=4)
    if env_id == "MetaMaze-misc" or (env_id == "FourRooms-misc" and shape == (4,)):
        return Drawing(_rooms(config), fps=8)
    return _by_shape(obs)


def _by_shape(obs: np.ndarray) -> Drawing:
    """A drawing of nothing but numbers in this shape."""
    shape = obs.shape[1:]
    if len(shape) == 3 and shape[-1] == 3 and obs.dtype == np.uint8:
        return Drawing(lambda obs, state: _enlarged(obs), fps=12)
    if len(shape) == 3:
        return Drawing(_image(shape), fps=12)
    if len(shape) == 2:
        return Drawing(_shades(obs), fps=6)
    return Drawing(_bars(obs), fps=6)


def font(size: int) -> Any:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def _classic(config: Config) -> Draw:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # neither a window nor a sound is wanted
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import gymnasium

    env = gymnasium.make(config.env.id, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    for name, value in config.env.params:  # a longer pole is drawn longer
        if hasattr(env, name):
            setattr(env, name, value)

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        if config.env.id == "Acrobot-v1":
            angles = np.arctan2(obs[1], obs[0]), np.arctan2(obs[3], obs[2])
            obs = np.array([*angles, *obs[4:]])
        env.state = np.asarray(obs, np.float64)
        return Image.fromarray(np.asarray(env.render()))

    return draw


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """Colours [H, W, 3] as squares."""
    size = max(1, _SIDE // max(pixels.shape[:2]))
    return Image.fromarray(np.repeat(np.repeat(pixels, size, 0), size, 1))


def _cells(colours: np.ndarray) -> Image.Image:
    """Colours [H, W, 3] as squares with thin lines between."""
    height, width = colours.shape[:2]
    size = max(4, _SIDE // max(height, width))
    pixels = np.repeat(np.repeat(colours.astype(np.uint8), size, 0), size, 1)
    if size >= 12:
        pixels[::size], pixels[:, ::size] = pixels[::size] // 4 * 3, pixels[:, ::size] // 4 * 3
    return Image.fromarray(pixels)


def _disc(picture: Image.Image, place: Any, shape: tuple[int, ...], colour: Any) -> None:
    """A disc in the cell (row, column) of a picture of ``shape`` cells."""
    size = picture.width // shape[1]
    row, column = (int(one) for one in place)
    corner, margin = (column * size, row * size), size * 0.18
    box = [corner[0] + margin, corner[1] + margin, corner[0] + size - margin, corner[1] + size - margin]
    ImageDraw.Draw(picture).ellipse(box, fill=colour, outline=(255, 255, 255), width=max(1, size // 16))


def _rooms(config: Config) -> Draw:
    """Walls, goal and agent. FourRooms shows both in its observation, MetaMaze only in its state."""
    open_cells = np.asarray(underlying_environment(config.env.id, dict(config.env.kwargs)).env_map).astype(bool)
    floor = np.where(open_cells[..., None], _LIGHT, _DARK)

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        state = getattr(state, "env_state", state)  # sticky actions are laid round it
        agent, goal = (obs[:2], obs[2:]) if config.env.id == "FourRooms-misc" else (state.pos, state.goal)
        colours = floor.copy()
        colours[int(goal[0]), int(goal[1])] = _GOAL
        picture = _cells(colours)
        _disc(picture, agent, colours.shape, _AGENT)
        return picture

    return draw


def _frozen_lake(config: Config) -> Draw:
    env = underlying_environment(config.env.id, dict(config.env.kwargs))
    tiles = np.asarray(env.desc)  # start, frozen, hole, goal
    colours = np.array([_PALE, _LIGHT, _HOLE, _GOAL])[tiles]

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        picture = _cells(colours)
        _disc(picture, divmod(int(obs), tiles.shape[1]), colours.shape, _AGENT)
        return picture

    return draw


def _image(shape: tuple[int, ...]) -> Draw:
    """[H, W, C]: where several channels are on, the later one is seen, as in MinAtar's own pictures."""
    palette = np.array(_CHANNELS)[np.arange(shape[-1]) % len(_CHANNELS)]

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        colours = np.tile(np.array(_DARK), (*shape[:2], 1))
        for channel, colour in enumerate(palette):
            colours[obs[..., channel] > 0] = colour
        return _cells(colours)

    return draw


def _shades(every: np.ndarray) -> Draw:
    """[H, W]: from dark, the lowest number of the episode, to light, its highest."""
    low, high = float(np.min(every)), float(np.max(every))

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        share = (np.asarray(obs, np.float64)[..., None] - low) / max(high - low, 1e-9)
        return _cells(np.array(_DARK) + share * (np.array(_CHANNELS[0]) - _DARK))

    return draw


def _bars(every: np.ndarray) -> Draw:
    """A bar for each number, over the range that all of them have in the episode."""
    flat = np.asarray(every, np.float64).reshape(len(every), -1)
    shown, more = min(_MAX_BARS, flat.shape[1]), max(0, flat.shape[1] - _MAX_BARS)
    low, high = min(0.0, float(flat.min())), max(0.0, float(flat.max()))
    height, left = max(16, min(40, _SIDE // shown)), 150
    scale = (_SIDE - 40) / max(high - low, 1e-9)

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        picture = Image.new("RGB", (left + _SIDE, height * (shown + bool(more)) + 8), _LIGHT)
        pen, zero = ImageDraw.Draw(picture), left + 20 - low * scale
        for i, value in enumerate(np.asarray(obs, np.float64).ravel()[:shown]):
            top = 4 + i * height
            pen.text((8, top), f"{i}", fill=_DARK, font=font(12))
            pen.text((40, top), f"{value:.4g}", fill=_DARK, font=font(12))
            ends = sorted((zero, zero + value * scale))
            pen.rectangle([ends[0], top + 2, max(ends[1], ends[0] + 1), top + height - 4], fill=_AGENT)
        if more:
            pen.text((8, 4 + shown * height), f"and {more} more", fill=_DARK, font=font(12))
        pen.line([zero, 0, zero, picture.height], fill=_PALE)
        return picture

    return draw
