"""Contact sheets and overlays."""

import numpy as np
from PIL import Image

from topolora_monai.data import contact_sheet, overlay


def test_outlines_lie_on_the_mask_and_what_is_not_scored_is_darkened():
    image = np.full((3, 20, 30), 0.8, np.float32)
    classes = np.zeros((20, 30))
    classes[5:15, 5:15] = 1
    classes[5:15, 18:28] = 2
    valid = np.ones((20, 30), bool)
    valid[:3] = False
    drawn = np.asarray(overlay(image, classes, valid)).astype(int)
    assert (drawn[0, :] == int(0.8 * 255 * 0.35)).all()
    assert (drawn[10, 10] == 204).all()  # the inside shows the image
    assert tuple(drawn[5, 10]) == (255, 176, 0)
    assert tuple(drawn[5, 20]) == (100, 143, 255)
    coloured = (drawn != drawn[..., :1]).any(-1)
    assert (classes[coloured] > 0).all()
    assert coloured.sum() == 2 * 36


def test_two_bands_show_the_first():
    image = np.stack([np.full((4, 4), 0.2), np.full((4, 4), 0.9)]).astype(np.float32)
    assert overlay(image, np.zeros((4, 4)), np.ones((4, 4), bool)).getpixel((0, 0)) == (51, 51, 51)


def test_sheet_holds_every_picture_in_order():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    pictures = [(f"name {n}", Image.new("RGB", (40, 30), colour)) for n, colour in enumerate(colours)]
    sheet = np.asarray(contact_sheet(pictures, columns=3))
    places = [np.argwhere((sheet == colour).all(-1)) for colour in colours]
    assert [len(place) for place in places] == [40 * 30] * 4
    tops, lefts = zip(*(place.min(0) for place in places), strict=True)
    assert tops[0] == tops[1] == tops[2] < tops[3]
    assert lefts[0] == lefts[3] < lefts[1] < lefts[2]


def test_large_pictures_are_reduced_and_long_names_cut():
    sheet = contact_sheet([("a very long name " * 10, Image.new("RGB", (1000, 500), (9, 99, 9)))], side=100)
    pixels = np.asarray(sheet)
    assert sheet.width < 130
    assert (pixels == (9, 99, 9)).all(-1).sum() == 100 * 50
