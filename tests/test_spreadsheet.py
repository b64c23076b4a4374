"""Names that strangers chose, in a file that a spreadsheet opens."""

import csv
import io

import pytest

from ser_model.spreadsheet import csv_bytes, neutral


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_is_a_formula(start):
    name = f'{start}HYPERLINK("https://example.org","x").wav'
    content = csv_bytes(["name", "score"], [[name, "0.5"]]).decode("utf-8-sig")
    [_, [cell, other]] = csv.reader(io.StringIO(content, newline=""))
    assert cell == f"'{name}" and other == "0.5"


@pytest.mark.parametrize("name", ['a,=1+1,".wav', "a;=1+1.wav", "a\r\n=1+1.wav", '"=1+1.wav', "録音.wav", "O'Hara.wav"])
def test_a_name_stays_in_its_cell(name):
    content = csv_bytes(["name"], [[name]])
    assert content.startswith(b"\xef\xbb\xbf")
    assert list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))) == [["name"], [name]]
    assert neutral(name) == name
