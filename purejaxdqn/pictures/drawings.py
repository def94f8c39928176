"""Draws one time step of an environment as an image: ``draw(obs, state) -> image``.

classic control    rendered by Gymnasium, in the state that the observation describes
grid worlds        the map, with the agent on it
suites             by their own renderers, where these work without a display
images             one colour per channel
matrices           one shade per entry
anything else      one bar per number
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from purejaxdqn.core.config import Config
from purejaxdqn.environments.registry import make_environment, underlying_environment
from purejaxdqn.system.faults import require

_SIDE = 400  # approximate length in pixels of an image's longer side
_MAX_BARS = 40
_DARK, _LIGHT, _PALE = (24, 27, 33), (240, 240, 236), (205, 208, 214)
_AGENT, _GOAL, _HOLE = (31, 95, 168), (64, 156, 92), (90, 140, 190)
_CHANNELS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
    (170, 170, 170), (148, 103, 189), (255, 255, 255),
)  # fmt: skip

Draw = Callable[[np.ndarray, Any], Image.Image]
"""Maps an observation [O] and the environment state before the step from it to an image. No step follows the final
observation, so it comes with the last state again."""


class Classic(NamedTuple):
    """Which of Gymnasium's environments of classic control draws an environment, and in which state."""

    gymnasium_id: str
    state: Callable[[np.ndarray], Any] = np.asarray  # observation [O] -> its state
    settings: Mapping[str, float] = {}  # attributes of Gymnasium's environment


CLASSIC: Mapping[str, Classic] = {
    "CartPole-v1": Classic("CartPole-v1"),
    "Acrobot-v1": Classic("Acrobot-v1", lambda obs: [_angle(*obs[1::-1]), _angle(*obs[3:1:-1]), *obs[4:]]),
    "MountainCar-v0": Classic("MountainCar-v0"),
    "sparse:MountainCar": Classic("MountainCar-v0", lambda obs: [0.9 * obs[0] - 0.3, 0.07 * obs[1]]),
    "sparse:CartPoleSwingUp": Classic(
        "CartPole-v1", lambda obs: [3 * obs[0], 3 * obs[1], _angle(obs[2], obs[3]), obs[4]], {"x_threshold": 3.0}
    ),
}


def _angle(sine: float, cosine: float) -> float:
    return float(np.arctan2(sine, cosine))


class Drawing(NamedTuple):
    """How to draw an environment."""

    draw: Draw
    fps: int  # frames per second of a film


def check_drawable(config: Config) -> None:
    """Raise a ``UserError`` if drawing this config's environment needs a package that is not installed."""
    if config.env.id in CLASSIC:
        require(f"drawing {config.env.id}", "pygame", install="purejaxdqn[video]")


def choose_drawing(config: Config, obs: np.ndarray) -> Drawing:
    """Choose how to draw an environment.

    Args:
      config: the config of the run.
      obs: all observations that will be drawn [T, O]; they set the scale of bars and shades.
    """
    env_id, shape = config.env.id, obs.shape[1:]
    if env_id in CLASSIC:
        return Drawing(_classic(config), fps=30)
    if ":" in env_id and (drawing := _rendered(config)):
        return drawing
    if env_id == "FrozenLake-misc":
        return Drawing(_frozen_lake(config), fps=4)
    if env_id == "MetaMaze-misc" or (env_id == "FourRooms-misc" and shape == (4,)):
        return Drawing(_rooms(config), fps=8)
    return _by_shape(obs)


def _rendered(config: Config) -> Drawing | None:
    """The renderer of the environment's own suite; None where it has none."""
    env = make_environment(**config.env.making())
    if env.render is None:
        return None
    render, params = env.render, env.with_params(config.hparams().env_params)
    return Drawing(lambda obs, state: _upscale(np.asarray(render(params, state))), fps=8)


def _by_shape(obs: np.ndarray) -> Drawing:
    """Choose a drawing by the observations' shape and type only."""
    shape = obs.shape[1:]
    if len(shape) == 3 and shape[-1] == 3 and obs.dtype == np.uint8:
        return Drawing(lambda obs, state: _upscale(obs), fps=12)
    if len(shape) == 3:
        return Drawing(_channels(shape), fps=12)
    if len(shape) == 2:
        return Drawing(_matrix(obs), fps=6)
    return Drawing(_bars(obs), fps=6)


def font(size: int) -> Any:
    """Return Pillow's built-in font in a size in pixels."""
    return ImageFont.load_default(size)


def _classic(config: Config) -> Draw:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # open no window and no sound device
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    import gymnasium

    classic = CLASSIC[config.env.id]
    env = gymnasium.make(classic.gymnasium_id, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    for name, value in [*classic.settings.items(), *config.env.params]:  # such as the length of the pole
        if hasattr(env, name):
            setattr(env, name, value)

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        env.state = np.asarray(classic.state(obs), np.float64)
        return Image.fromarray(np.asarray(env.render()))

    return draw


def _upscale(pixels: np.ndarray) -> Image.Image:
    """Draw each colour of [H, W, 3] as a square."""
    size = max(1, _SIDE // max(pixels.shape[:2]))
    return Image.fromarray(np.repeat(np.repeat(pixels, size, 0), size, 1))


def _cells(colours: np.ndarray) -> Image.Image:
    """Draw each colour of [H, W, 3] as a square, with thin lines between the squares."""
    height, width = colours.shape[:2]
    size = max(4, _SIDE // max(height, width))
    pixels = np.repeat(np.repeat(colours.astype(np.uint8), size, 0), size, 1)
    if size >= 12:
        pixels[::size], pixels[:, ::size] = pixels[::size] // 4 * 3, pixels[:, ::size] // 4 * 3
    return Image.fromarray(pixels)


def _disc(picture: Image.Image, cell: Any, shape: tuple[int, ...], colour: Any) -> None:
    """Draw a disc in the cell (row, column) of an image of ``shape`` cells."""
    size = picture.width // shape[1]
    row, column = map(int, cell)
    corner, margin = (column * size, row * size), size * 0.18
    box = [corner[0] + margin, corner[1] + margin, corner[0] + size - margin, corner[1] + size - margin]
    ImageDraw.Draw(picture).ellipse(box, fill=colour, outline=(255, 255, 255), width=max(1, size // 16))


def _rooms(config: Config) -> Draw:
    """Draw walls, goal and agent. FourRooms has their positions in its observation, MetaMaze only in its state."""
    open_cells = np.asarray(underlying_environment(config.env.id, dict(config.env.kwargs)).env_map).astype(bool)
    floor = np.where(open_cells[..., None], _LIGHT, _DARK)

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        while hasattr(state, "env_state"):  # sticky actions and batches that reset themselves wrap it
            state = state.env_state
        agent, goal = (obs[:2], obs[2:]) if config.env.id == "FourRooms-misc" else (state.pos, state.goal)
        colours = floor.copy()
        colours[int(goal[0]), int(goal[1])] = _GOAL
        picture = _cells(colours)
        _disc(picture, agent, colours.shape, _AGENT)
        return picture

    return draw


def _frozen_lake(config: Config) -> Draw:
    env = underlying_environment(config.env.id, dict(config.env.kwargs))
    tiles = np.asarray(env.desc)  # 0 start, 1 frozen, 2 hole, 3 goal
    colours = np.array([_PALE, _LIGHT, _HOLE, _GOAL])[tiles]

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        picture = _cells(colours)
        _disc(picture, divmod(int(obs), tiles.shape[1]), colours.shape, _AGENT)
        return picture

    return draw


def _channels(shape: tuple[int, ...]) -> Draw:
    """Draw an observation [H, W, C]; where several channels are on, the last one shows, as in MinAtar's renderer."""
    palette = np.array(_CHANNELS)[np.arange(shape[-1]) % len(_CHANNELS)]

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        colours = np.tile(np.array(_DARK), (*shape[:2], 1))
        for channel, colour in enumerate(palette):
            colours[obs[..., channel] > 0] = colour
        return _cells(colours)

    return draw


def _matrix(all_obs: np.ndarray) -> Draw:
    """Draw an observation [H, W] in shades from dark, the episode's lowest number, to light, its highest."""
    low, high = float(np.min(all_obs)), float(np.max(all_obs))

    def draw(obs: np.ndarray, state: Any) -> Image.Image:
        share = (np.asarray(obs, np.float64)[..., None] - low) / max(high - low, 1e-9)
        return _cells(np.array(_DARK) + share * (np.array(_CHANNELS[0]) - _DARK))

    return draw


def _bars(all_obs: np.ndarray) -> Draw:
    """Draw one bar per number; all bars share the range of the episode's numbers."""
    flat = np.asarray(all_obs, np.float64).reshape(len(all_obs), -1)
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
