"""Frames of the landing page and of the firing alerts as GIFs: run by render-demo."""

import html
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

from PIL import Image

WIDTH, PAGE, ALERTS = 1200, 446, 184
FRAMES, SECONDS = 14, 7
FIRST = ["ClerkRateLimitThrottled", "ClerkRateLimitExhausted", "ClerkRateLimitLow"]
SCHEMES = {"light": 1, "dark": 0}
STYLE = """
body { margin: 0; padding: 10px 32px; font: 16px sans-serif; color: #1f1f1f; background: #fafafa }
h1 { font-size: 18px; margin: 4px 0 8px } p { margin: 6px 0 } small { color: #555 }
b { display: inline-block; width: 76px; border-radius: 4px; color: #fff; text-align: center; font-size: 13px; padding: 2px 0 }
.critical { background: #b3261e } .warning { background: #8f5600 } .info { background: #3b5f8a }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616 } small { color: #aaa } }
"""


def shoot(url, scheme, height, folder, width=WIDTH):
    """A screenshot by headless Chromium."""
    file = pathlib.Path(folder) / "shot.png"
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--window-size={width},{height}",
         f"--user-data-dir={folder}/profile", f"--screenshot={file}", url],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
    )
    return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def alerts(prometheus):
    """What Prometheus fires, the strongest first."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/alerts", timeout=10) as response:
        found = json.load(response)["data"]["alerts"]
    firing = [alert for alert in found if alert["state"] == "firing"]
    return sorted(firing, key=lambda alert: FIRST.index(alert["labels"]["alertname"])
                  if alert["labels"]["alertname"] in FIRST else len(FIRST))


def page(firing):
    """The alerts as a page."""
    rows = []
    for alert in firing[:3]:
        labels, notes = alert["labels"], alert["annotations"]
        who = f"{labels['alertname']} · {labels.get('clerk_instance', '')}"
        text = notes.get("top_caller", notes["summary"])
        rows.append(f"<p><b class={labels['severity']}>{labels['severity']}</b> {html.escape(who)}: "
                    f"{html.escape(notes['summary'])}<br><small>Top caller: {html.escape(text)}</small></p>")
    return (f"<style>{STYLE}</style><h1>Firing in Prometheus: {len(firing) or 'nothing'}</h1>" + "".join(rows))


def common_palette(frames):
    """One palette for all frames, so that only what changed is stored. Few pixels are bright, and bars would turn grey
    if they had no colours of their own."""
    bright = []
    for frame in frames:
        saturation = frame.convert("HSV").getchannel("S").getdata()
        bright += [pixel for pixel, value in zip(frame.getdata(), saturation) if value > 110]
    height = len(bright) // WIDTH
    sample = Image.new("RGB", (WIDTH, height))
    sample.putdata(bright[: WIDTH * height])
    colours = sample.quantize(14).getpalette()[: 14 * 3] + frames[-1].quantize(34).getpalette()[: 34 * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def main(exporter, prometheus, out):
    out = pathlib.Path(out)
    for _ in range(60):
        try:
            urllib.request.urlopen(exporter, timeout=2).close()
            alerts(prometheus)
            break
        except OSError:
            time.sleep(1)
    frames = {scheme: [] for scheme in SCHEMES}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "alerts.html"
        for _ in range(FRAMES):
            started = time.monotonic()
            file.write_text(page(alerts(prometheus)), encoding="utf-8")
            for scheme, made in frames.items():
                whole = Image.new("RGB", (WIDTH, PAGE + ALERTS))
                whole.paste(shoot(exporter, scheme, PAGE, folder), (0, 0))
                whole.paste(shoot(file.as_uri(), scheme, ALERTS, folder), (0, PAGE))
                made.append(whole.resize((900, (PAGE + ALERTS) * 900 // WIDTH), Image.Resampling.LANCZOS))
            time.sleep(max(0, SECONDS - (time.monotonic() - started)))
        shoot(exporter, "light", 900, folder, 1300).quantize(64).save(out / "landing.png", optimize=True)
    for scheme, made in frames.items():
        palette = common_palette(made)
        made = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in made]
        pauses = [700] * (len(made) - 1) + [4000]
        target = out / f"demo-{scheme}.gif"
        made[0].save(target, save_all=True, append_images=made[1:], duration=pauses, loop=0, optimize=True)
        print(f"{target}: {target.stat().st_size // 1000} kB, {len(made)} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])
