"""The page of a store: what it says is what the store holds, for any store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from store_samples import columns, root_attributes, slide_attributes, specs, write_slide

from wsisr.drawing.overlays import MAP_TISSUE, PATCH, REFUSED, patch_overlay
from wsisr.errors import StoreError
from wsisr.reporting.store_facts import StoreFacts, level_shift_px, read_facts
from wsisr.reporting.store_page import write_store_report
from wsisr.reporting.store_pairs import choose_extremes, choose_gallery, choose_refused, read_pair
from wsisr.reporting.store_sections import THUMBNAIL_BYTES, reframed, slide_map, thumbnail_side_px
from wsisr.store import StoreWriter, keep_pairs

SIZE = 64
SHIFT = (3, -5)
"""Where the file wrongly places LR, HR px."""
MARGIN = 13
XLINK = "http://www.w3.org/1999/xlink"
KINDS = {"train": 3, "val": 1, "test": 1}


def scene(seed: int, side: int = SIZE + 2 * MARGIN) -> np.ndarray:
    """A smooth picture with detail, HR px."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (side // 8 + 2, side // 8 + 2, 3)).astype(np.float64)
    big = np.kron(coarse, np.ones((8, 8, 1)))
    for axis in (0, 1):
        big = sum(np.roll(big, k, axis) for k in range(-3, 4)) / 7
    return big[:side, :side].astype(np.uint8)


def pairs(count: int, seed: int) -> dict[str, np.ndarray]:
    """HR cut where LR really lies, as a registration leaves it."""
    hr, lr = [], []
    for index in range(count):
        region = scene(seed + index)
        y, x = MARGIN + SHIFT[1], MARGIN + SHIFT[0]
        cut = region[y : y + SIZE, x : x + SIZE]
        hr.append(cut)
        lr.append(cut.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(1, 3)).astype(np.uint8))
    return {"40x": np.stack(hr), "10x": np.stack(lr)}


def certificates(count: int, refused: int) -> dict[str, Any]:
    """Columns of registered pairs, the last of them refused."""
    values = columns(count, SIZE)
    kept = np.arange(count) < count - refused
    return values | {
        "offset_x": np.full(count, MARGIN + SHIFT[0]),
        "offset_y": np.full(count, MARGIN + SHIFT[1]),
        "residual_x": np.linspace(0.0, 0.2, count),
        "residual_y": np.linspace(0.0, -0.1, count),
        "ncc": np.linspace(0.99, 0.9, count),
        "sharpness": np.ones(count),
        "verdict": kept.astype(np.int8),
        "reason": np.where(kept, -1, 0),
        "kept": kept,
    }


def build(path: Path, **manifest: Any) -> Path:
    """A registered store of five slides, one of them partly refused, and one that failed."""
    names = [f"{kind}_{k}" for kind, count in KINDS.items() for k in range(count)]
    given = {"name": "sample", "size": SIZE, "readings": ["The paper says <nothing>."]}
    given |= {"registration": {"method": "subpixel", "region_px": None}, "seed": 3, **manifest}
    attributes = root_attributes([*names, "lost"], manifest=given)
    writer = StoreWriter.create(path, attributes)
    rows: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    places = {name: index for index, name in enumerate(sorted([*names, "lost"]))}
    for seed, name in enumerate(names):
        refused = 2 if name == "test_0" else 0
        count = 8
        table = certificates(count, refused)
        tissue = np.zeros((40, 40), np.uint8)
        tissue[5:30, 5:35] = 1
        more = {
            "split": name.split("_")[0],
            "funnel": {"candidates": 20, "tissue": 12, "registered": 8, "kept": count - refused},
            "levels": [
                {"index": 0, "factor": 1, "used": True, "compression": {"codec": "jpeg"}},
                {"index": 2, "factor": 4, "used": True, "compression": {"quality": 70}},
            ],
            "evidence": [{"level": 2, "psnr_db": 21.5, "kernel": "decimated", "warning": True}],
            "lr_flags": {"10x": "Level 2: 21.5 dB, <decimated>"} if name == "val_0" else {},
            "reader_check": {"status": "unchecked" if name == "val_0" else "agree"},
            "notes": ["Level 2 is <odd>."],
            "site": "RUMC",
            "vendor": "philips",
            "backend": "direct",
        }
        write_slide(
            writer, name, pairs(count, 10 * seed), tissue=tissue, attributes=more, table=table
        )
        rows[name.split("_")[0]] += [(places[name], k) for k in range(count - refused)]
    writer.commit_splits({kind: np.array(found, np.int32) for kind, found in rows.items()})
    writer.clean()
    folder = path.with_name("pairs.report")
    folder.mkdir(exist_ok=True)
    (folder / "failures.csv").write_text(
        'slide,file,stage,kind,error\nlost,lost.svs,scan,MppError,"no <mpp>, state it"\n'
    )
    (folder / "summary.md").write_text("# s\n\n## Warnings\n\n- test/any: 6 of 100.\n\n## Slides\n")
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report") / "pairs.zarr")


@pytest.fixture(scope="module")
def facts(store: Path) -> StoreFacts:
    return read_facts(store, store.with_name("pairs.report"))


@pytest.fixture(scope="module")
def html(store: Path) -> str:
    return write_store_report(store).read_text(encoding="utf-8")


def test_the_page_lies_in_the_report_folder_with_its_figures(store: Path, html: str) -> None:
    folder = store.with_name("pairs.report")
    assert (folder / "report.html").is_file()
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {
        "funnel.png",
        "residual-of-10x.png",
        "residual-field-test_0.png",
        "pair-worst-before.png",
        "pair-worst-red-cyan.png",
        "pair-best-squares.png",
    } <= names


def test_it_says_what_the_store_holds(html: str) -> None:
    assert "38 pairs from 5 slides of 5 patients" in html
    for section in ("overview", "pairs", "alignment", "funnel", "slides", "splits", "refused"):
        assert f'<section id="{section}"' in html
    assert "The paper says &lt;nothing&gt;." in html
    assert "test/any: 6 of 100." in html
    assert "10x: stored-level" in html


def test_it_counts_the_splits_by_label(html: str) -> None:
    for name, count, share in (("train", 24, 63.2), ("val", 8, 21.1), ("test", 6, 15.8)):
        assert (
            f'<th scope="row">{name}</th><td class="n">{count}</td><td class="n">{share} %</td>'
            in html
        )
    assert '<th scope="row">train</th><td class="n">12</td><td class="n">12</td>' in html


def test_it_names_what_was_refused_and_why(html: str) -> None:
    refused = html[html.index('<section id="refused"') : html.index('<section id="levels"')]
    assert "no &lt;mpp&gt;, state it" in refused
    assert '<th scope="row">flat</th><td class="n">2</td>' in refused
    assert "wsisr keep pairs.zarr" in refused


def test_it_shows_the_ceiling_and_the_warning_about_levels(html: str) -> None:
    assert "alignment ceiling: PSNR-Y" in html
    assert "On 5 of 5 slides a stored level in use differs" in html


def test_every_image_has_its_words_and_no_link_leaves_the_page(html: str) -> None:
    words = ("Pair of ", "Red/cyan overlay of ", "LR and HR of ", "Slide ")
    assert html.count("<img ") == sum(html.count(f' alt="{word}') for word in words)
    plain = html.replace("http://www.w3.org/2000/svg", "").replace(XLINK, "")
    assert "http://" not in plain
    assert "https://" not in html


def test_a_second_page_is_the_same(store: Path, html: str) -> None:
    assert write_store_report(store).read_text(encoding="utf-8") == html


def test_the_shift_before_registration_is_known(facts: StoreFacts) -> None:
    x, y = facts.shift_before_px(0) or (0, 0)
    assert (x, y) == pytest.approx(SHIFT, abs=1e-6)


def test_before_is_worse_than_after(facts: StoreFacts) -> None:
    pair = read_pair(facts, 0, overlays=True)
    assert pair.before is not None and pair.after is not None

    def fringes(image: np.ndarray) -> float:
        return float(np.abs(image[..., 0].astype(float) - image[..., 1]).mean())

    assert fringes(pair.before) > 2 * fringes(pair.after)


def test_level_shifts_follow_the_calibration() -> None:
    transform = {"level": 2, "measured": True, "offset_x_px": 1.0, "offset_y_px": -2.0}
    transform |= {"slope_x": 0.01, "slope_y": 0.0}
    attributes = {"level_transforms": [transform]}
    assert level_shift_px(attributes, 2, (100.0, 50.0)) == pytest.approx((2.0, -2.0))
    assert level_shift_px(attributes, 1, (100.0, 50.0)) is None
    transform["measured"] = False
    assert level_shift_px(attributes, 2, (100.0, 50.0)) is None


def test_the_gallery_takes_kept_pairs_of_all_slides_in_turn(facts: StoreFacts) -> None:
    chosen = choose_gallery(facts, 10)
    assert chosen == choose_gallery(facts, 10)
    assert facts.kept[chosen].all() and len(set(chosen)) == 10
    assert np.bincount(facts.slide_of[chosen]).max() == 2
    assert len(choose_gallery(facts, 1000)) == facts.kept.sum()


def test_extremes_are_ordered_by_certificate(facts: StoreFacts) -> None:
    band = facts.column("ncc_band")
    assert band is not None
    found = choose_extremes(facts)
    assert band[found["best"]] >= band[found["median"]] >= band[found["worst"]]
    assert band[found["worst"]] == band[facts.kept].min()


def test_refused_pairs_are_shown_by_reason(facts: StoreFacts) -> None:
    chosen = choose_refused(facts, 3)
    assert len(chosen) == 2 and not facts.kept[chosen].any()


def test_a_random_split_is_stamped_with_what_was_measured(tmp_path: Path) -> None:
    path = build(tmp_path / "pairs.zarr", split={"kind": "paper-random"})
    StoreWriter.attach(path).set_root(
        {"leaky": {"test_pairs": 6, "overlapping": 3, "same_patient": 6}}
    )
    html = write_store_report(path, tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'class="badge bad">LEAKY' in html
    assert "Of 6 test pairs 3 (50.0 %) overlap a training pair and 6 (100.0 %)" in html


def test_an_unfinished_store_says_so(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "pairs.zarr", root_attributes(["a", "b"]))
    write_slide(writer, "a", pairs(3, 0), table=columns(3, SIZE))
    html = write_store_report(tmp_path / "pairs.zarr").read_text(encoding="utf-8")
    assert "build not finished" in html
    assert "1 planned slides are not in the store, and no failure is recorded: b" in html


def test_a_store_without_slides_is_refused(tmp_path: Path) -> None:
    StoreWriter.create(tmp_path / "pairs.zarr", root_attributes(["a"]))
    with pytest.raises(StoreError, match="no finished slide"):
        write_store_report(tmp_path / "pairs.zarr")


def test_a_bare_store_needs_nothing_but_its_required_columns(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "pairs.zarr", root_attributes(["a"]))
    bare = {name: columns(3, SIZE)[name] for name in ("x", "y", "kept")}
    with writer.slide("a", specs(SIZE)) as slide:
        slide.append(pairs(3, 0))
        given = slide_attributes("a", mpp=None)
        slide.finish(bare, np.ones((4, 4), np.uint8), given)
    writer.commit_splits({"train": np.array([[0, 0], [0, 1], [0, 2]])})
    html = write_store_report(tmp_path / "pairs.zarr").read_text(encoding="utf-8")
    assert "No residual was measured" in html


def test_four_hundred_slides_give_a_page_that_can_be_mailed(tmp_path: Path) -> None:
    names = [f"slide_{k:03d}" for k in range(400)]
    writer = StoreWriter.create(tmp_path / "pairs.zarr", root_attributes(names))
    rng = np.random.default_rng(0)
    tissue = (rng.random((12, 16)) > 0.4).astype(np.uint8).repeat(30, 0).repeat(30, 1)
    table = columns(40, SIZE) | {
        "x": np.arange(40) % 8 * 900,
        "y": np.arange(40) // 8 * 900,
        "residual_x": np.full(40, 0.1),
        "residual_y": np.full(40, 0.2),
    }
    write_slide(writer, names[0], pairs(40, 0), tissue=tissue, table=table, batch=40)
    writer.commit_splits({"train": np.array([(s, r) for s in range(400) for r in range(40)])})
    writer.clean()
    for name in names[1:]:  # one slide, four hundred times
        (tmp_path / "pairs.zarr" / "slides" / name).symlink_to(names[0])
    pictures = tmp_path / "pairs.report" / "slides"
    pictures.mkdir(parents=True)
    Image.fromarray(scene(0, 800)).save(pictures / f"{names[0]}.png")
    for name in names[1:200]:  # half of them as the build drew them
        (pictures / f"{name}.png").symlink_to(f"{names[0]}.png")
    page = write_store_report(tmp_path / "pairs.zarr")
    assert page.stat().st_size < 20e6
    assert page.read_text(encoding="utf-8").count("40 of 40 pairs kept, train") == 400


def test_pictures_of_slides_follow_keep(tmp_path: Path) -> None:
    path = build(tmp_path / "pairs.zarr")
    picture = tmp_path / "pairs.report/slides/test_0.png"
    picture.parent.mkdir()
    corners = np.array([[k * SIZE, 0] for k in range(8)])
    paper = np.full((200, 512, 3), 255, np.uint8)
    Image.fromarray(patch_overlay(paper, 8 * SIZE, corners, np.ones(8, bool), SIZE)).save(picture)
    keep_pairs(path, "ncc>0.95")
    html = write_store_report(path).read_text(encoding="utf-8")
    # How wide the picture is, this store does not say.
    assert "Frames are as built" in html
    assert "wsisr keep has decided anew since: 20 of 40 stored pairs count" in html
    facts = read_facts(path, tmp_path / "pairs.report")
    facts.attributes["test_0"]["levels"][0]["width_px"] = 8 * SIZE
    drawn = reframed(facts, "test_0", picture)
    assert drawn is not None and np.array_equal(drawn, np.asarray(Image.open(picture)))
    refused = [bool((drawn[0, k * SIZE + 9] == REFUSED).all()) for k in range(8)]
    kept = [bool((drawn[0, k * SIZE + 9] == PATCH).all()) for k in range(8)]
    assert refused == [ncc <= 0.95 for ncc in np.linspace(0.99, 0.9, 8)]
    assert kept == [not flag for flag in refused]


def test_thumbnails_share_one_budget() -> None:
    for count in (1, 10, 100, 400, 1000):
        side = thumbnail_side_px(count)
        assert 96 <= side <= 720
        assert count * 0.5 * side**2 <= THUMBNAIL_BYTES * 1.01
    assert thumbnail_side_px(100_000) == 96


def test_a_mask_alone_shows_kept_and_refused_patches_where_they_are(facts: StoreFacts) -> None:
    drawn = slide_map(facts, "test_0", 600)
    scene = facts.scene("test_0")
    assert drawn is not None and scene is not None
    per_px = drawn.shape[1] / scene.extent_px[0]
    places = np.rint(scene.origins * per_px).astype(int)
    kept = facts.kept[scene.rows]
    seen = [drawn[y, x, :3].tolist() for x, y in places]
    assert seen.count(list(REFUSED)) >= 2
    assert all(seen[k] == list(PATCH if kept[k] else REFUSED) for k in (0, len(kept) - 1))
    inside = drawn[int(20 / 40 * drawn.shape[0]), int(30 / 40 * drawn.shape[1])]
    assert inside.tolist() == list(MAP_TISSUE) and drawn[-1, 0, 3] == 0


def test_flagged_lr_and_unconfirmed_readers_stand_on_the_page(html: str) -> None:
    """Even without the summary of the build beside it."""
    assert html.count("Level 2: 21.5 dB, &lt;decimated&gt;") == 2  # in the note, in the table
    assert "Flagged LR." in html and "evidence calls worse than a reduction" in html
    assert "LR that the evidence speaks against" in html
    assert "confirmed 4, not confirmed 1" in html
