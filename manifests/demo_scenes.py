"""Draw rows of moving objects: what the demo's videos show, and why only motion names the class.

A row of equal objects is described by one phase in [0, 1) per axis of motion: how far it has
marched sideways, turned, grown, hopped and swayed. *Every* class starts from phases drawn
uniformly on all axes, and a class only says which one phase runs and in which direction. A uniform
phase that runs stays uniform, so a single frame has the same distribution in every class, at every
time: neither place, size, pose, texture nor colour says anything about the class.
"""

from dataclasses import dataclass

import cv2
import numpy as np

FPS = 15
"""Frames per second of every demo video."""

MARCH, TURN, GROW, HOP, SWAY = range(5)
"""Axes of motion: columns of every `phases_TA`."""

MOTIONS: dict[str, tuple[int, int]] = {
    "bounce": (HOP, 1),
    "oscillate": (SWAY, 1),
    "rotate_clockwise": (TURN, 1),
    "rotate_counterclockwise": (TURN, -1),
    "translate_left": (MARCH, -1),
    "translate_right": (MARCH, 1),
    "zoom_in": (GROW, 1),
    "zoom_out": (GROW, -1),
}
"""Class name -> the axis whose phase runs, and in which direction; in class id order."""

RATES = {
    MARCH: (0.40, 0.65),
    TURN: (0.35, 0.55),
    GROW: (0.50, 0.75),
    HOP: (1.00, 1.40),
    SWAY: (0.90, 1.30),
}
"""Slowest and fastest rate of each axis in cycles per second: all are plain within one second."""

ZOOM_RATIO = 2.8  # largest size over smallest
SPRITE_SIZE = 56  # pixels; objects are drawn at 0.3 to 1.1 times this
BACKDROP_MARGIN = 8  # pixels around the frame, room for the camera to drift


@dataclass(frozen=True)
class Act:
    """One action of one row of objects, in frames, half-open.

    Frame `f` is inside if the objects moved between the frames `f - 1` and `f`.
    """

    start_frame: int
    end_frame: int
    label: str


@dataclass(frozen=True)
class ObjectRow:
    """A row of equal objects, `period` pixels apart, that move together.

    Attributes:
        sprites: Pictures of the object, uint8 `(SPRITE_SIZE, SPRITE_SIZE, 4)`, premultiplied.
        sprite_T: Which of them shows in each frame; -1 for none.
        phases_TA: float64 in [0, 1), the phase of each axis in each frame.
        radius: Half the object's size in pixels, at middle zoom.
        period: Distance between neighbours in pixels.
        baseline: Height on the screen, in pixels from the top, before hopping.
    """

    sprites: tuple[np.ndarray, ...]
    sprite_T: np.ndarray
    phases_TA: np.ndarray
    radius: float
    period: int
    baseline: float


@dataclass(frozen=True)
class Scene:
    """Everything a video shows: rendering it draws no random number.

    Attributes:
        width, height: Size in pixels, even.
        backdrop: uint8, wider than the frame by `BACKDROP_MARGIN` on each side.
        drift_T2: Where the camera stands, x and y in pixels.
        grain: float32, noise to take each frame's noise from.
        grain_T2: Top left corner of each frame's noise in `grain`.
        rows: Rows of objects, from the back to the front.
        acts: The actions of all rows, by start.
    """

    width: int
    height: int
    backdrop: np.ndarray
    drift_T2: np.ndarray
    grain: np.ndarray
    grain_T2: np.ndarray
    rows: tuple[ObjectRow, ...]
    acts: tuple[Act, ...]

    @property
    def num_frames(self) -> int:
        """Length in frames."""
        return len(self.drift_T2)


def poses_from_phases(phases_TA: np.ndarray) -> np.ndarray:
    """Turn phases into the place, angle and size of an object.

    Args:
        phases_TA: float64, one column per axis.

    Returns:
        float64 `(T, 5)`: march in periods; dx, dy in radii; angle in radians, clockwise on the
        screen; size as a factor.
    """
    march, turn, grow, hop, sway = np.moveaxis(phases_TA, -1, 0)
    dx = 0.65 * np.sin(2 * np.pi * sway)
    dy = -np.abs(np.sin(np.pi * hop))  # the floor is hit once per cycle
    return np.stack([march, dx, dy, 2 * np.pi * turn, ZOOM_RATIO ** (grow - 0.5)], axis=-1)


def run_phases(
    phases_A: np.ndarray, acts: list[Act], rates_A: np.ndarray, num_frames: int
) -> np.ndarray:
    """Let each act's axis run while it lasts; everything else stands still.

    Args:
        phases_A: Phases of the first frame.
        acts: Acts that do not overlap.
        rates_A: Cycles per second of each axis.
        num_frames: Length of the video.

    Returns:
        float64 `(T, A)` in [0, 1).
    """
    steps_TA = np.zeros((num_frames, len(phases_A)))
    for act in acts:
        axis, direction = MOTIONS[act.label]
        steps_TA[act.start_frame : act.end_frame, axis] = direction * rates_A[axis] / FPS
    steps_TA[0] = 0  # nothing came before the first frame
    return (phases_A + np.cumsum(steps_TA, axis=0)) % 1.0


def render_frames(scene: Scene) -> np.ndarray:
    """Draw every frame of a scene: uint8 `(T, H, W, 3)`, RGB."""
    poses_by_row = [poses_from_phases(row.phases_TA) for row in scene.rows]
    frames_THWC = np.empty((scene.num_frames, scene.height, scene.width, 3), np.uint8)
    size = (scene.width, scene.height)
    for t, frame in enumerate(frames_THWC):
        shift = np.hstack([np.eye(2), scene.drift_T2[t][:, None] - BACKDROP_MARGIN])
        canvas = cv2.warpAffine(scene.backdrop, shift, size).astype(np.float32)
        for row, poses in zip(scene.rows, poses_by_row, strict=True):
            if row.sprite_T[t] >= 0:
                layer = _draw_row(row, row.sprites[row.sprite_T[t]], poses[t], size)
                canvas *= 1 - layer[..., 3:] / 255
                canvas += layer[..., :3]
        top, left = scene.grain_T2[t]
        canvas += scene.grain[top : top + scene.height, left : left + scene.width]
        np.clip(np.rint(canvas, out=canvas), 0, 255, out=canvas)
        frame[:] = canvas
    return frames_THWC


def paint_sprite(rng: np.random.Generator, hue: float) -> np.ndarray:
    """Draw an object without any symmetry: turning must show."""
    half = SPRITE_SIZE / 2
    num_corners = int(rng.integers(5, 10))
    angles = (
        2 * np.pi * (np.arange(num_corners) + rng.uniform(-0.3, 0.3, num_corners)) / num_corners
    )
    radii = rng.uniform(0.45, 1.0, num_corners)
    radii[0], radii[num_corners // 2] = 1.0, 0.4  # one tip, and a dent across from it
    corners = half + 0.96 * half * radii[:, None] * np.stack(
        [np.cos(angles), 0.6 * np.sin(angles)], 1
    )
    mask = np.zeros((SPRITE_SIZE, SPRITE_SIZE), np.uint8)
    cv2.fillPoly(mask, [np.rint(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    hue += rng.uniform(0.25, 0.75)
    light = colour(hue, rng.uniform(0.3, 0.9), rng.uniform(0.85, 1.0))
    dark = colour(hue + rng.uniform(-0.2, 0.2), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.7))
    colours = paint(rng, mask.shape, light, dark, wavelength=rng.uniform(18, 40))
    alpha = mask[..., None].astype(np.float32) / 255
    return np.dstack([np.rint(colours * alpha), mask]).astype(np.uint8)


def paint(
    rng: np.random.Generator,
    shape: tuple[int, int],
    colour_a: np.ndarray,
    colour_b: np.ndarray,
    wavelength: float,
) -> np.ndarray:
    """Fill a picture with stripes, checks, spots, clouds or a ramp of two colours, at any angle."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]] * (2 * np.pi / wavelength)
    u = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(0, 2 * np.pi)
    v = np.cos(angle) * y - np.sin(angle) * x + rng.uniform(0, 2 * np.pi)
    clouds = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), wavelength / 6)
    ramp = u - u.mean()
    wave = (
        np.sin(u) * 4,
        np.sin(u) * np.sin(v) * 8,
        (np.cos(u) + np.cos(v) - 0.6) * 4,
        clouds / clouds.std() * 2,
        ramp / np.abs(ramp).max() * 1.5,
    )[int(rng.integers(5))]
    share = 1 / (1 + np.exp(-wave[..., None]))
    return np.rint(colour_a * share + colour_b * (1 - share)).astype(np.uint8)


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return an RGB colour, float64 in 0 to 255; the hue is a fraction of the circle."""
    wheel = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1.0 * 6 - 3) - 1
    return 255 * value * (1 - saturation * (1 - np.clip(wheel, 0, 1)))


def _draw_row(
    row: ObjectRow, sprite: np.ndarray, pose: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Draw one object in a cell of the row, and lay cells side by side: `(H, W, 4)` uint8."""
    march, dx, dy, angle, factor = pose
    shift, part = divmod(march * row.period + dx * row.radius, 1.0)
    centre = np.array([row.period / 2 + part, row.baseline + dy * row.radius])
    zoom = factor * row.radius / (SPRITE_SIZE / 2)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, (SPRITE_SIZE - 1) / 2)
    matrix = np.column_stack([turn, centre - turn @ middle])
    cell = cv2.warpAffine(sprite, matrix, (row.period, size[1]), flags=cv2.INTER_LINEAR)
    left = -int(shift) % row.period
    copies = -(-(left + size[0]) // row.period)
    return np.tile(cell, (1, copies, 1))[:, left : left + size[0]]
