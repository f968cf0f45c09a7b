"""Every annotation format becomes the same areas, and goes out again as GeoJSON."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selection_scenes import info_of
from shapely.geometry import Polygon, box

from wsisr.errors import AnnotationError
from wsisr.geometry import Box
from wsisr.selection.annotation_formats import shapes
from wsisr.selection.annotation_formats.names import (
    IGNORED,
    NORMAL,
    TUMOR,
    UNLABELLED,
    ClassNames,
)
from wsisr.selection.annotation_use import as_classes
from wsisr.selection.annotations import load_annotations, load_label_mask, save_geojson
from wsisr.selection.points import load_points
from wsisr.selection.rules import Labelling, label_shares

SQUARE = [(0, 0), (100, 0), (100, 100), (0, 100)]


def _asap(path: Path, *annotations: tuple[str, str, list[tuple[float, float]]]) -> Path:
    body = "".join(
        f'<Annotation Name="A{i}" Type="{kind}" PartOfGroup="{group}"><Coordinates>'
        + "".join(f'<Coordinate Order="{j}" X="{x}" Y="{y}"/>' for j, (x, y) in enumerate(points))
        + "</Coordinates></Annotation>"
        for i, (group, kind, points) in enumerate(annotations)
    )
    path.write_text(f"<ASAP_Annotations><Annotations>{body}</Annotations></ASAP_Annotations>")
    return path


def _shift(points, dx, dy=0):
    return [(x + dx, y + dy) for x, y in points]


@pytest.mark.parametrize("group", ["_0", "_1", "Tumor", "metastases"])
def test_camelyon_tumour_groups_are_tumour(tmp_path, group):
    found = load_annotations(_asap(tmp_path / "a.xml", (group, "Polygon", SQUARE)))
    assert found.source_format == "asap"
    assert found.labels == (TUMOR,)
    assert found.area(TUMOR).area_px2 == 10_000


@pytest.mark.parametrize("group", ["_2", "Exclusion"])
def test_camelyon_exclusions_are_holes_wherever_they_stand_in_the_file(tmp_path, group):
    inner = [(20, 20), (60, 20), (60, 60), (20, 60)]
    path = _asap(tmp_path / "a.xml", (group, "Polygon", inner), ("_0", "Polygon", SQUARE))
    found = load_annotations(path)
    assert found.area(TUMOR).area_px2 == 10_000 - 1_600
    assert found.labels == (TUMOR,)
    assert found.label_fraction(Box(x=20, y=20, width=40, height=40), TUMOR) == 0.0


def test_asap_orders_corners_and_reads_points(tmp_path):
    path = tmp_path / "a.xml"
    corners = [(2, 100, 100), (0, 0, 0), (3, 0, 100), (1, 100, 0)]
    rows = "".join(f'<Coordinate Order="{o}" X="{x}" Y="{y}"/>' for o, x, y in corners)
    path.write_text(
        "<ASAP_Annotations><Annotations>"
        f'<Annotation Type="Polygon" PartOfGroup="None"><Coordinates>{rows}</Coordinates>'
        '</Annotation><Annotation Type="PointSet" PartOfGroup="Mitosis"><Coordinates>'
        '<Coordinate Order="0" X="1.5" Y="2.5"/></Coordinates></Annotation>'
        "</Annotations></ASAP_Annotations>"
    )
    found = load_annotations(path)
    assert found.area(UNLABELLED).area_px2 == 10_000
    assert found.points[0].label == "mitosis"
    assert found.points[0].xy.tolist() == [[1.5, 2.5]]


def test_real_format_examples(shared_data):
    """Files written by ASAP, QuPath and Sectra themselves."""
    folder = shared_data / "annotations" / "formats"
    read = {path.name: load_annotations(path, (49_000, 30_000)) for path in folder.iterdir()}
    assert len(read["asap-dot.xml"].points[0].xy) == 1
    assert len(read["asap-pointset.xml"].points[0].xy) == 5
    assert round(read["asap-polygon.xml"].area(UNLABELLED).area_px2) == 28_617
    assert read["qupath-rectangle.json"].area(UNLABELLED).area_px2 == 210 * 176
    for kind in ("polygon", "brush", "wand", "ellipse"):
        found = read[f"qupath-{kind}.json"]
        assert [region.name for region in found.regions] == [kind]
        assert found.notes == ()
    ellipse = read["qupath-ellipse.json"].regions[0].polygon
    left, top, right, bottom = ellipse.bounds
    assert ellipse.area == pytest.approx(np.pi / 4 * (right - left) * (bottom - top), rel=0.01)
    cells = read["qupath-polygon-cell-classified.json"]
    assert cells.labels == ("Cell", "Nucleus")
    assert len(cells.regions) == 4
    assert read["pathologycore-area.json"].source_format == "sectra"


def test_sectra_area_fits_only_the_slide_whose_size_gives_its_stated_area(shared_data):
    path = shared_data / "annotations" / "formats" / "pathologycore-area.json"
    with pytest.raises(AnnotationError, match="relative to the slide"):
        load_annotations(path)
    width_um = (5.33e6 / 0.009540860) ** 0.5
    slide = info_of(round(width_um / 0.25), 50_000, 0.25)
    found = load_annotations(path, slide)
    assert found.area(UNLABELLED).area_px2 * 0.25**2 / 1e6 == pytest.approx(5.33, abs=0.01)
    with pytest.raises(AnnotationError, match="another slide"):
        load_annotations(path, info_of(40_000, 30_000, 0.25))


def test_ncrf_negative_cuts_holes_in_tumour_slides_and_outlines_tissue_in_normal_ones(tmp_path):
    hole = {"name": "n", "vertices": [[10, 10], [30, 10], [30, 30], [10, 30]]}
    whole = {"name": "p", "vertices": SQUARE}
    tumour, normal = tmp_path / "Tumor_1.json", tmp_path / "any_name.json"
    tumour.write_text(json.dumps({"positive": [whole], "negative": [hole]}))
    normal.write_text(json.dumps({"positive": [], "negative": [whole]}))
    assert load_annotations(tumour).area(TUMOR).area_px2 == 10_000 - 400
    assert load_annotations(normal).labels == (NORMAL,)
    assert load_annotations(normal).area(NORMAL).area_px2 == 10_000


def test_ncrf_points_fall_into_the_class_that_their_list_says(shared_data):
    """At least 97 % on every slide whose polygons are here.

    Measured: all but 48 of 16,992, and those within 37 px of an outline.
    """
    folder = shared_data / "annotations" / "camelyon16_ncrf_json"
    files = {path.stem: path for path in folder.glob("*/*.json")}
    counted = 0
    for label in ("tumor", "normal"):
        lists = load_points(shared_data / "coords" / f"ncrf_{label}_valid.txt")
        for slide in sorted(set(lists) & set(files)):
            inside = load_annotations(files[slide]).contains(lists[slide], TUMOR)
            right = inside if label == "tumor" else ~inside
            assert right.mean() >= 0.97, (slide, label, right.mean())
            counted += len(right)
    assert counted == 16_992


def test_qupath_old_and_new_styles(tmp_path):
    ring = [[*SQUARE, SQUARE[0]]]
    documents = {
        "collection": {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": ring},
                    "properties": {"classification": {"names": ["Tumor", "Positive"]}},
                }
            ],
        },
        "list": [
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": [ring]},
                "properties": {"classification": {"name": "Tumor: Positive", "colorRGB": -1}},
            }
        ],
        "geometry": {
            "type": "GeometryCollection",
            "geometries": [{"type": "Polygon", "coordinates": ring}],
        },
    }
    labels = {"collection": "Tumor: Positive", "list": "Tumor: Positive", "geometry": UNLABELLED}
    for name, document in documents.items():
        path = tmp_path / f"{name}.geojson"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document).encode())
        assert load_annotations(path).area(labels[name]).area_px2 == 10_000


def test_qupath_cells_have_two_outlines(tmp_path):
    cell = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
        "nucleusGeometry": {"type": "Polygon", "coordinates": [[(10, 10), (20, 10), (20, 20)]]},
        "properties": {"objectType": "cell", "classification": {"name": "Lymphocyte"}},
    }
    (tmp_path / "cell.geojson").write_text(json.dumps([cell]))
    found = load_annotations(tmp_path / "cell.geojson")
    assert found.labels == ("Lymphocyte", "Nucleus")
    assert found.area("Nucleus").area_px2 == 50


def test_everything_comes_back_from_geojson_unchanged(tmp_path, shared_data):
    for source in (shared_data / "annotations" / "camelyon16_ncrf_json" / "valid").iterdir():
        first = load_annotations(source)
        save_geojson(tmp_path / "out.geojson", first.to_geojson())
        second = load_annotations(tmp_path / "out.geojson")
        assert second.labels == first.labels
        assert len(second.regions) == len(first.regions)
        for a, b in zip(first.regions, second.regions, strict=True):
            assert a.polygon.equals(b.polygon)
            assert (a.label, a.name) == (b.label, b.name)


def test_geojson_has_what_qupath_needs(tmp_path):
    path = _asap(tmp_path / "a.xml", ("_0", "Polygon", SQUARE), ("None", "Dot", [(3, 4)]))
    area, point = load_annotations(path).to_geojson()["features"]
    assert area["type"] == "Feature"
    assert area["geometry"]["type"] == "Polygon"
    assert area["geometry"]["coordinates"][0][0] == area["geometry"]["coordinates"][0][-1]
    assert area["properties"]["objectType"] == "annotation"
    assert area["properties"]["classification"]["name"] == TUMOR
    assert len(area["id"]) == 36
    assert point["geometry"] == {"type": "MultiPoint", "coordinates": [[3, 4]]}
    assert "classification" not in point["properties"]


def test_label_mask_is_outlined_along_its_pixel_edges(tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 5:25] = 2
    mask[12:14, 8:10] = 0
    mask[30:35, 30:31] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = load_label_mask(tmp_path / "mask.png", 32.0, {2: TUMOR, 7: "necrosis"})
    assert found.area(TUMOR).area_px2 == (200 - 4) * 32**2
    assert found.label_fraction(Box(x=160, y=320, width=64, height=64), TUMOR) == 1.0
    assert found.area("necrosis").area_px2 == 5 * 32**2
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(AnnotationError, match="one channel"):
        load_label_mask(tmp_path / "rgb.png", 32.0)
    with pytest.raises(AnnotationError, match="not positive"):
        load_label_mask(tmp_path / "mask.png", float("nan"))


def test_overlapping_areas_count_once_and_bow_ties_are_repaired(tmp_path):
    bow_tie = [(200, 0), (300, 100), (300, 0), (200, 100)]
    path = _asap(
        tmp_path / "a.xml",
        ("_0", "Polygon", SQUARE),
        ("_1", "Polygon", _shift(SQUARE, 50)),
        ("_0", "Polygon", bow_tie),
        ("_0", "Polygon", [(0, 0), (5, 5), (9, 9)]),
    )
    found = load_annotations(path)
    assert found.area(TUMOR).area_px2 == pytest.approx(15_000 + 5_000)
    assert any("repaired" in note for note in found.notes)
    assert any("without area" in note for note in found.notes)


def _star(vertices: int, seed: int) -> Polygon:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    radius = rng.uniform(2_000, 9_000, vertices)
    return Polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + 10_000)


@pytest.mark.parametrize("side", [64, 1050, 30_000])
def test_fractions_equal_polygon_clipping_for_any_box_size(tmp_path, side):
    star = _star(1_000, 5).difference(box(9_000, 9_000, 11_000, 10_500))
    path = tmp_path / "star.geojson"
    path.write_text(json.dumps({"type": "Feature", **_feature(star)}))
    found = load_annotations(path)
    origins = np.random.default_rng(0).integers(-1_000, 20_000, (120, 2))
    boxes = np.concatenate([origins, np.full((120, 2), side)], axis=1)
    shares = found.label_fraction(boxes, UNLABELLED)
    expected = [star.intersection(box(x, y, x + w, y + h)).area / side**2 for x, y, w, h in boxes]
    assert np.abs(shares - expected).max() < 1e-9
    assert found.label_fraction(boxes, "nothing").tolist() == [0.0] * 120


def _feature(polygon: Polygon) -> dict:
    return {"geometry": polygon.__geo_interface__, "properties": {}}


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;">]><ASAP_Annotations>&b;</ASAP_Annotations>"""


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (BOMB, "entities or a DTD"),
        ("<ASAP_Annotations><Annotations>", "no valid XML"),
        ("<Notes/>", "neither <ASAP_Annotations>"),
        ("slide,x,y", "neither XML nor JSON"),
        ("", "neither XML nor JSON"),
        ("{", "no valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"hello": 1}', "neither GeoJSON, NCRF"),
        ('{"type": "Polygon", "coordinates": [[[0, NaN], [1, 1], [2, 0]]]}', "NaN"),
        ('{"type": "Polygon", "coordinates": [[[0, 1e400], [1, 1], [2, 0]]]}', "not finite"),
        ('{"type": "Polygon", "coordinates": [[[0, 1e12], [1, 1], [2, 0]]]}', "beyond"),
        ('{"type": "Polygon", "coordinates": [[[0, "x"], [1, 1], [2, 0]]]}', "no pair"),
        ('{"type": "Polygon", "coordinates": [[[0, true], [1, 1], [2, 0]]]}', "no pair"),
        ('{"type": "Polygon", "coordinates": [1, 2]}', "misshapen"),
        ('{"type": "Polygon"}', "no coordinates"),
        ('{"type": "FeatureCollection", "features": 3}', "list of features"),
        ('{"type": "Feature", "geometry": {"type": "Circle"}}', "no GeoJSON geometry"),
        ('{"positive": 1, "negative": []}', "must be lists"),
        ('{"positive": [{"name": "x"}], "negative": []}', "list of vertices"),
        (
            '{"type": "Polygon", "coordinates": [[[0, 1' + "0" * 400 + "], [1, 1], [2, 0]]]}",
            "no pair",
        ),
    ],
)
def test_broken_and_hostile_files_are_refused_by_name(tmp_path, content, fault):
    path = tmp_path / "hostile.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=fault) as caught:
        load_annotations(path)
    assert "hostile.json" in str(caught.value)


def test_limits_on_size_and_vertices(tmp_path, monkeypatch):
    path = _asap(tmp_path / "a.xml", ("_0", "Polygon", SQUARE))
    monkeypatch.setattr(shapes, "MAX_VERTICES", 3)
    with pytest.raises(AnnotationError, match="more than 3 vertices"):
        load_annotations(path)
    monkeypatch.setattr(shapes, "MAX_FILE_BYTES", 10)
    with pytest.raises(AnnotationError, match="MiB"):
        load_annotations(path)
    with pytest.raises(AnnotationError, match="cannot be read"):
        load_annotations(tmp_path / "missing.xml")


def test_point_lists(tmp_path):
    path = tmp_path / "points.txt"
    path.write_text("slide,x,y\nb,3,4\na,1,2\n\n# comment\nname, with comma,5,6\na,7.5,8\n")
    found = load_points(path)
    assert list(found) == ["a", "b", "name, with comma"]
    assert found["a"].tolist() == [[1, 2], [7.5, 8]]
    for text in ("a,1,2\nb,3\n", "a,1,2\na,nan,3\n", "a,1,2\na,x,3\n"):
        path.write_text(text)
        with pytest.raises(AnnotationError, match="line 2"):
            load_points(path)


def _geojson(path: Path, *named: tuple[str, list[tuple[float, float]]]) -> Path:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "properties": {"classification": {"name": label}} if label else {},
        }
        for label, ring in named
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


IMAGESCOPE = """<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">
<Annotation Id="1" Name="Tumor" LineColor="65280"><Regions>
<Region Id="1" Type="0" NegativeROA="0"><Vertices><Vertex X="0" Y="0"/><Vertex X="100" Y="0"/>
<Vertex X="100" Y="100"/><Vertex X="0" Y="100"/></Vertices></Region>
<Region Id="2" Type="1" NegativeROA="1"><Vertices><Vertex X="10" Y="10"/><Vertex X="20" Y="10"/>
<Vertex X="20" Y="20"/><Vertex X="10" Y="20"/></Vertices></Region>
<Region Id="3" Type="2" NegativeROA="0"><Vertices><Vertex X="200" Y="0"/><Vertex X="240" Y="20"/>
</Vertices></Region><Region Id="4" Type="3"><Vertices><Vertex X="0" Y="0"/><Vertex X="9" Y="9"/>
</Vertices></Region></Regions></Annotation>
<Annotation Id="2" Name=""><Attributes><Attribute Name="Description" Value="stroma"/></Attributes>
<Regions><Region Id="1" Text="x"><Vertices><Vertex X="0,5" Y="0"/><Vertex X="4,5" Y="0"/>
<Vertex X="4,5" Y="4"/></Vertices></Region></Regions></Annotation>
<Annotation Id="3" Name=""><Regions><Region Id="1" Text=""><Vertices><Vertex X="0" Y="0"/>
<Vertex X="4" Y="0"/><Vertex X="4" Y="4"/></Vertices></Region></Regions></Annotation>
</Annotations>"""


def test_imagescope_layers_are_classes_and_negative_regions_cut(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(IMAGESCOPE)
    found = load_annotations(path)
    assert found.source_format == "imagescope"
    assert found.labels == ("Tumor", "stroma", UNLABELLED)
    square, ellipse = (region.polygon for region in found.regions[:2])
    assert square.area == 10_000 - 100
    assert ellipse.area == pytest.approx(np.pi * 20 * 10, rel=0.01)
    assert found.area("stroma").area_px2 == 8


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_other_encodings_and_decimal_commas_are_read(tmp_path, encoding):
    asap = _asap(tmp_path / "a.xml", ("_0", "Polygon", [("0,5", 0), ("10,5", 0), ("10,5", "8,0")]))
    text = '<?xml version="1.0" encoding="utf-8"?>' + asap.read_text()
    asap.write_bytes(text.encode(encoding))
    assert load_annotations(asap).area(TUMOR).area_px2 == 40
    qupath = _geojson(tmp_path / "a.geojson", ("Tümör", SQUARE))
    document = json.dumps(json.loads(qupath.read_text()), ensure_ascii=False)
    qupath.write_bytes(document.encode(encoding))
    assert load_annotations(qupath).labels == ("Tümör",)


def test_a_comma_that_may_group_thousands_is_refused(tmp_path):
    path = _asap(tmp_path / "a.xml", ("_0", "Polygon", [("1,234.5", 0), (10, 0), (10, 8)]))
    with pytest.raises(AnnotationError, match="no pair of coordinates"):
        load_annotations(path)


def test_normal_cuts_out_of_the_tumour_that_it_lies_in_and_of_no_other(tmp_path):
    inner = [(20, 20), (60, 20), (60, 60), (20, 60)]
    cut = load_annotations(
        _asap(tmp_path / "a.xml", ("metastases", "Polygon", SQUARE), ("normal", "Polygon", inner))
    )
    assert cut.area(TUMOR).area_px2 == 10_000 - 1_600
    assert cut.area(NORMAL).area_px2 == 1_600
    around = load_annotations(
        _geojson(tmp_path / "a.geojson", ("Tumor", inner), ("Normal", SQUARE))
    )
    assert around.area("Tumor").area_px2 == 1_600
    assert around.area("Normal").area_px2 == 10_000


def test_what_qupath_ignores_is_of_no_class(tmp_path):
    inner = [(0, 0), (50, 0), (50, 100), (0, 100)]
    path = _geojson(tmp_path / "a.geojson", ("Tumor", SQUARE), ("Ignore*", inner))
    found, use = as_classes(load_annotations(path), ClassNames(("normal", "tumor"), {}), (300, 300))
    assert found.area("tumor").area_px2 == 5_000
    assert found.area(IGNORED).area_px2 == 5_000
    assert (use.used, use.unknown) == (1, {})
    boxes = np.array([[0, 0, 50, 50], [50, 0, 50, 50], [200, 0, 50, 50]])
    labels, _ = label_shares(boxes, Labelling(annotations=found, labels=("tumor",), other="normal"))
    assert labels.tolist() == ["", "tumor", "normal"]


@pytest.mark.parametrize(
    "name", ["Tumor", "TUMOR", " tumour ", "metastases", "Tumor: Positive", "_0", "Carcinoma"]
)
def test_class_names_fold_case_and_take_synonyms(name):
    names = ClassNames(("normal", "tumor"), {"tumor": ["carcinoma", "DCIS"]})
    assert names.find(name) == "tumor"
    assert names.find("Stroma") is None and names.find("Normal") == "normal"
    assert ClassNames(("tumor", "metastases"), {}).find("Metastases") == "metastases"
    assert ClassNames(("Tumour",), {}).find("tumor") == "Tumour"


def test_a_group_says_the_class_of_the_groups_in_it(tmp_path):
    path = _asap(tmp_path / "a.xml", ("left", "Polygon", SQUARE), ("out", "Polygon", SQUARE[:3]))
    groups = (
        '<AnnotationGroups><Group Name="left" PartOfGroup="Side"/><Group Name="Side" '
        'PartOfGroup="Tumor"/><Group Name="Tumor" PartOfGroup="Tumor"/><Group Name="out" '
        'PartOfGroup="Exclusion"/></AnnotationGroups></ASAP_Annotations>'
    )
    path.write_text(path.read_text().replace("</ASAP_Annotations>", groups))
    found, use = as_classes(load_annotations(path), ClassNames(("normal", "tumor"), {}), (300, 300))
    assert found.area("tumor").area_px2 == 5_000
    assert (use.shapes, use.used, use.unknown) == (1, 1, {})


def test_what_means_nothing_is_reported_with_numbers(tmp_path):
    path = _geojson(
        tmp_path / "a.geojson", ("Necrosis", SQUARE), ("Necrosis", SQUARE), ("", SQUARE),
        ("Tumor", _shift(SQUARE, 5000)),
    )  # fmt: skip
    _, use = as_classes(load_annotations(path), ClassNames(("normal", "tumor"), {}), (300, 300))
    assert (use.shapes, use.used, use.outside) == (4, 0, 1)
    assert use.unknown == {"Necrosis": 2, UNLABELLED: 1}
    unknown, outside, nothing = use.sentences(("normal", "tumor"))
    assert "'Necrosis' (2)" in unknown and "normal, tumor" in unknown
    assert outside.startswith("1 of 4") and "labels nothing" in nothing


def test_geojson_is_in_qupaths_frame_in_and_out(tmp_path):
    path = _geojson(tmp_path / "a.geojson", ("Tumor", SQUARE))
    slide = replace(info_of(4000, 4000, 0.25), origin_px=(1024, 768))
    found = load_annotations(path, slide)
    assert found.regions[0].polygon.bounds == (1024, 768, 1124, 868)
    save_geojson(tmp_path / "b.geojson", found.to_geojson())
    assert load_annotations(tmp_path / "b.geojson").regions[0].polygon.bounds == (0, 0, 100, 100)
    plane = load_annotations(_asap(tmp_path / "a.xml", ("_0", "Polygon", SQUARE)), slide)
    assert plane.regions[0].polygon.bounds == (0, 0, 100, 100)
