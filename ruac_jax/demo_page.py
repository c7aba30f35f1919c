"""The page: Gradio components around `demo_state` and `demo_pictures`. Everything it shows comes from this machine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import numpy as np
from jaxtyping import UInt8

from ruac_jax.data.shapes import ShapesSource
from ruac_jax.demo_pictures import (
    describe_answer,
    describe_clicks,
    describe_mask,
    describe_uncertainty,
    draw_mask,
    draw_session,
    draw_uncertainty,
    draw_waiting,
    view_size,
)
from ruac_jax.demo_state import Click, Session, Settings, SharedModel, to_image
from ruac_jax.errors import UserError
from ruac_jax.picture_files import read_picture

_EXAMPLES = ("source", "fog", "lowlight", "texture", "invert", "thin", "cells", "spiky", "logs", "roofs")
_NUMBER, _SIDE = 1, 256  # which image of each domain, and its side in px
_KEPT = 3600  # seconds that pictures shown stay on the disk
_TITLE = "Segment anything, and see where not to trust the mask"
_INTRODUCTION = (
    "The network outlines the object you click on (mask) and says how undecided it is about every pixel (uncertainty): "
    "where that is high, the mask is most likely wrong."
)
_ABOUT_EXAMPLES = (
    "Generated examples: small models are trained on images like the first; the others shift its look or its shapes."
)
_SHOWN = [("best", "best"), ("1", "1"), ("2", "2"), ("3", "3"), ("single", "single")]
_KINDS = [("object", "object"), ("background", "background"), ("box corner", "corner")]
_METHODS = [("formula", "analytic"), ("random draws", "monte_carlo")]
_SAMPLES = (5, 20, 100)  # few choices: each is compiled on its own

STYLE = """
.gradio-container { max-width: 1240px !important; }
.gradio-container h1 { font-size: 1.45rem; margin: 0 0 .2rem; }
.gradio-container h3 { font-size: 1.05rem; margin: 0; }
.gradio-container h3 small { font-weight: 400; opacity: .7; margin-left: .5rem; }
.intro p { margin: 0; }
#examples .grid-wrap { overflow: auto hidden; padding: 0; min-height: 0; max-height: none; }
#examples .grid-container { grid-template-columns: repeat(var(--grid-cols), minmax(84px, 1fr));
  grid-template-rows: none; grid-auto-rows: auto; }
#examples .thumbnail-lg { aspect-ratio: 4 / 3; }
#examples .caption-label { font-size: .75rem; padding: 0 .3rem; }
.hint { font-weight: 500; min-height: 1.5em; }
.legend, .facts, .chips { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; align-items: center; font-size: .9rem; }
.chips { gap: .3rem .5rem; margin-top: .3rem; }
.muted { opacity: .7; }
.chip { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: 0 .6rem; }
.chip.chosen { background: #0072B2; border-color: #0072B2; color: white; }
.legend .dot, .legend .frame { display: inline-block; width: .85rem; height: .85rem; margin-right: .4rem;
  vertical-align: -.1rem; box-sizing: border-box; border-radius: 50%; }
.legend .frame { border: 3px solid; border-radius: 2px; }
.legend .square { border-radius: 2px; }
.legend .cross { margin-right: .3rem; }
.bar { height: .8rem; border-radius: 3px; border: 1px solid var(--border-color-primary); }
.ticks { display: flex; justify-content: space-between; font-size: .85rem; }
.view { max-width: 640px; }  /* Gradio miscounts clicks on pictures larger than they are */
.view img { cursor: crosshair; }
footer { display: none !important; }
"""


class _Panel(NamedTuple):
    """What shows one model's answer."""

    facts: gr.HTML
    mask: gr.Image
    mask_legend: gr.HTML
    uncertainty: gr.Image


def theme() -> gr.themes.Base:
    """Colours and fonts; fonts are those of the visitor's system, none is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
        spacing_size="sm",
    )


def examples() -> list[tuple[UInt8[np.ndarray, "s s 3"], str]]:
    """Generated images of the source domain and of shifted ones, with their names."""
    return [(ShapesSource(name, "validation", size=_SIDE)[_NUMBER]["image"], name) for name in _EXAMPLES]


def build(models: Sequence[SharedModel]) -> gr.Blocks:
    """The page for one model, or for two side by side; start it by its `launch`, with `theme()` and `STYLE`."""
    pictures = examples()
    start = Session(pictures[0][0])
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as page:
        session = gr.State(start)
        gr.HTML(f'<h1>{_TITLE}</h1><p>{_INTRODUCTION}</p><p class="muted">{_ABOUT_EXAMPLES}</p>', elem_classes="intro")
        gallery = gr.Gallery(
            pictures,
            show_label=False,
            container=False,
            columns=len(pictures),
            rows=1,
            allow_preview=False,
            object_fit="cover",
            buttons=[],
            elem_id="examples",
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                kind = gr.Radio(_KINDS, value="object", label="The next click marks", elem_id="kind")
                view = gr.Image(
                    draw_session(start),
                    show_label=False,
                    alt_text="The image to click on",
                    interactive=False,
                    format="png",
                    buttons=[],
                    elem_id="view",
                    elem_classes="view",
                )
                hint = gr.HTML(describe_clicks(start), elem_id="hint")
                with gr.Row():
                    undo = gr.Button("Undo", size="md", elem_id="undo", min_width=80)
                    clear = gr.Button("Clear", size="md", elem_id="clear", min_width=80)
                    upload = gr.UploadButton(
                        "Open image", size="md", file_types=["image"], elem_id="upload", min_width=120
                    )
                if len(models) > 1:
                    controls = _controls(gr.Column)
            with gr.Column(scale=2, min_width=340):
                panels = [_panel(model, number, start) for number, model in enumerate(models)]
                if len(models) == 1:
                    controls = _controls(gr.Row)
        results = [component for panel in panels for component in panel]
        outputs = [session, view, hint, *results]

        def shown(current: Session, *values: Any) -> list[Any]:
            return [current, draw_session(current), describe_clicks(current), *_answers(models, current, *values)]

        def clicked(current: Session, mode: str, *values: Any, event: gr.SelectData) -> list[Any]:
            size, (x, y) = current.image.shape[:2], event.index
            place = to_image((float(x), float(y)), view_size(size), size)
            return shown(current.add(Click(mode, *place)), *values)

        def picked(*values: Any, event: gr.SelectData) -> list[Any]:
            return shown(Session(pictures[event.index][0]), *values)

        def uploaded(path: str, *values: Any) -> list[Any]:
            try:
                return shown(Session(read_picture(Path(path))), *values)
            except UserError as error:
                raise gr.Error(str(error).removeprefix(f"{path}: "), print_exception=False) from error

        waits = {"outputs": outputs, "show_progress_on": [panel.facts for panel in panels]}
        view.select(_with_event(clicked), [session, kind, *controls], **waits)
        undo.click(lambda current, *values: shown(current.undo(), *values), [session, *controls], **waits)
        clear.click(lambda current, *values: shown(current.clear(), *values), [session, *controls], **waits)
        gallery.select(_with_event(picked), controls, **waits)
        upload.upload(uploaded, [upload, *controls], **waits)
        method = controls[1]
        method.change(lambda value: gr.update(visible=value == "monte_carlo"), method, controls[2])
        for control in controls:
            happens = control.release if isinstance(control, gr.Slider) else control.input
            happens(lambda *values: _answers(models, *values), [session, *controls], **(waits | {"outputs": results}))
    return page


def _with_event(function: Any) -> Any:
    """Gradio hands the event to a parameter by its annotation, which must not come after `*values`."""

    def wrapped(event: gr.SelectData, *values: Any) -> list[Any]:
        return function(*values, event=event)

    return wrapped


def _controls(row: Any) -> list[Any]:
    """In the order of the fields of `Settings`.

    Args:
      row: what each half of them stands in: `gr.Row`, or `gr.Column` where there is little width.
    """
    with gr.Group():
        with row():
            shown = gr.Radio(
                _SHOWN,
                value="best",
                label="Mask to show",
                info="Clicks are ambiguous: three proposals.",
                elem_id="shown",
            )
            method = gr.Radio(
                _METHODS,
                value="analytic",
                label="Uncertainty from",
                info="analytic, or random masks (Monte Carlo)",
                elem_id="method",
            )
            samples = gr.Dropdown(list(_SAMPLES), value=20, label="Draws", visible=False, elem_id="samples")
        with row():
            above = gr.Slider(0, 1, 0.5, step=0.05, label="Error-prone above", buttons=[], elem_id="above")
            corrected = gr.Checkbox(
                False,
                label="Correct the mask (UncCorr)",
                info="Removes separate fragments of high uncertainty.",
                elem_id="corrected",
            )
    return [shown, method, samples, corrected, above]


def _panel(model: SharedModel, number: int, start: Session) -> _Panel:
    facts = gr.HTML(describe_answer(model, None, 0.5), elem_id=f"facts{number}")
    waiting = draw_waiting(start)
    common = {"interactive": False, "format": "png", "buttons": ["download"]}
    with gr.Row():
        with gr.Column(min_width=240):
            mask = gr.Image(waiting, label="Mask", elem_id=f"mask{number}", **common)
            legend = gr.HTML(describe_mask(0.5))
        with gr.Column(min_width=240):
            uncertainty = gr.Image(waiting, label="Uncertainty", elem_id=f"uncertainty{number}", **common)
            gr.HTML(describe_uncertainty())
    return _Panel(facts, mask, legend, uncertainty)


def _answers(models: Sequence[SharedModel], session: Session, *values: Any) -> list[Any]:
    """What every panel shows, one after the other."""
    settings, prompt = Settings(*values), session.prompt()
    above = settings.doubtful_above
    shown: list[Any] = []
    for model in models:
        if prompt is None:
            waiting = draw_waiting(session)
            shown += [describe_answer(model, None, above), waiting, describe_mask(above), waiting]
        else:
            found = model.answer(session.image, prompt, settings)
            shown += [
                describe_answer(model, found, above),
                draw_mask(session, found, above),
                describe_mask(above),
                draw_uncertainty(session, found),
            ]
    return shown
