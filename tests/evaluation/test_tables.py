from ruac_jax.evaluation.tables import markdown_table, show


def test_columns_are_aligned():
    table = markdown_table(["name", "J"], [["a", "1.00"], ["longer name", "-"]])
    assert table.splitlines() == [
        "| name        |    J |",
        "| ----------- | ---: |",
        "| a           | 1.00 |",
        "| longer name |    - |",
    ]


def test_narrow_columns_still_have_a_rule():
    assert markdown_table(["x", "y"], []).splitlines()[1] == "| - | -: |"


def test_numbers_as_cells():
    assert show(None) == "-"
    assert show(0.12345) == "0.1235"
    assert show(0.5, 1, percent=True) == "50.0"
    assert show(0.0, 2) == "0.00"
