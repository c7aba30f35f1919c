"""What lies between a generated scene and the camera: weather, water, darkness, noise. Pictures are in [0, 1]."""

import numpy as np
from scipy.ndimage import gaussian_filter

from ruac_jax.data.drawing.surfaces import Picture, fractal, hsv, stripes


def clean(image: Picture, rng: np.random.Generator) -> Picture:
    """A good camera: a trace of sensor noise."""
    return image + np.float32(0.012) * rng.standard_normal(image.shape, np.float32)


def low_light(image: Picture, rng: np.random.Generator) -> Picture:
    """Night: a small share of the light, less red, photon and readout noise, then a weak re-exposure."""
    size = image.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    center = rng.uniform(-0.5, 0.5, 2).tolist()
    lamp = np.exp(-((ramp[None, :] - center[0]) ** 2 + (ramp[:, None] - center[1]) ** 2) / rng.uniform(0.8, 2.0))
    light = image * np.array([0.75, 0.9, 1.1], np.float32) * (0.35 + 0.65 * lamp)[..., None] * rng.uniform(0.10, 0.2)
    noise = rng.standard_normal(image.shape, np.float32)
    return (light + noise * np.sqrt(0.0015 * light + 0.0003)) * rng.uniform(2.4, 3.4) + 0.02


def fog(image: Picture, rng: np.random.Generator) -> Picture:
    """Drifting fog: a pale veil that lets 25 to 75 % through, and a blurred view."""
    size = image.shape[0]
    blurred = blur(image, rng.uniform(0.8, 1.6))
    through = rng.uniform(0.35, 0.6) * (1 + 0.5 * fractal(rng, (size, size), 2, 3))
    veil = hsv(rng.uniform(0.5, 0.65), rng.uniform(0.02, 0.12), rng.uniform(0.68, 0.85))
    through = np.clip(through, 0.25, 0.75)[..., None]
    return clean(blurred * through + veil * (1 - through), rng)


def underwater(image: Picture, rng: np.random.Generator) -> Picture:
    """Murky water: red is swallowed, a green-blue veil, rippling light and drifting particles."""
    size = image.shape[0]
    depth = rng.uniform(0.25, 0.55) * (1 + 0.25 * fractal(rng, (size, size), 2, 2))[..., None]
    through = np.exp(-depth * np.array([2.3, 0.75, 0.85], np.float32))
    veil = hsv(rng.uniform(0.42, 0.53), rng.uniform(0.55, 0.8), rng.uniform(0.35, 0.55))
    ripple = np.abs(fractal(rng, (size, size), 7, 2))
    caustics = 0.16 * np.exp(-((ripple / 0.07) ** 2))
    scene = blur(image, rng.uniform(0.7, 1.3)) * through + veil * (1 - through)
    snow = np.zeros((size, size), np.float32)
    count = int(rng.integers(15, 50))
    snow[rng.integers(0, size, count), rng.integers(0, size, count)] = rng.uniform(0.8, 2.5, count)  # brightness
    snow = gaussian_filter(snow, 0.8 * size / 128)
    return clean(scene * (1 + caustics)[..., None] + np.clip(snow, 0, 0.5)[..., None], rng)


def thermal(image: Picture, rng: np.random.Generator) -> Picture:
    """A heat camera: brightness as temperature, soft, in false colours from black over violet and orange to white."""
    heat = blur(image, rng.uniform(0.8, 1.4)).mean(axis=2)
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-6)
    heat = np.clip(heat ** rng.uniform(0.7, 1.2) + 0.02 * rng.standard_normal(heat.shape, np.float32), 0, 1)
    stops = np.array([[0, 0, 0.05], [0.35, 0.05, 0.5], [0.85, 0.3, 0.2], [1, 0.75, 0.15], [1, 1, 0.9]], np.float32)
    position = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(heat, position, channel) for channel in stops.T], axis=2).astype(np.float32)


def sketch(image: Picture, rng: np.random.Generator) -> Picture:
    """A pencil drawing: outlines where the brightness changes, hatching where it is low, on tinted paper."""
    light = blur(image, 0.8).mean(axis=2)
    down, right = np.gradient(light * (image.shape[0] / 128))
    lines = np.clip(np.hypot(down, right) * rng.uniform(5, 8), 0, 1)
    axis = (np.arange(image.shape[0], dtype=np.float32) + 0.5) * (128 / image.shape[0])
    x, y = np.meshgrid(axis, axis)
    hatching = stripes(x, y, rng.uniform(0.5, 1.0), rng.uniform(2.6, 3.6), 0.0)
    shade = np.clip(1 - light / max(float(np.percentile(light, 80)), 1e-6), 0, 1) * hatching
    grain = 1 + 0.12 * rng.standard_normal(light.shape, np.float32)
    ink = np.clip((0.85 * lines + 0.55 * shade) * grain, 0, 1)[..., None]
    paper = hsv(rng.uniform(0.08, 0.16), rng.uniform(0.02, 0.12), rng.uniform(0.9, 0.98))
    return paper * (1 - ink) + hsv(0.6, 0.1, 0.15) * ink


def grainy(image: Picture, rng: np.random.Generator) -> Picture:
    """A microscope or an X-ray detector: slight blur and grain."""
    return blur(image, 0.55) + np.float32(0.022) * rng.standard_normal(image.shape, np.float32)


def blur(image: Picture, sigma: float) -> Picture:
    """Gaussian blur; `sigma` in 1/128 of the image's side."""
    scaled = sigma * image.shape[0] / 128
    return gaussian_filter(image, (scaled, scaled, 0), mode="nearest", truncate=3.0)
