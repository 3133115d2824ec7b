"""Long work shows that it goes on: a bar where somebody looks, lines where nobody does."""

import sys
from types import SimpleNamespace

from support import progress as module
from support.progress import progress


def test_redirected_it_writes_lines(capsys):
    bar = progress(range(3), "work", every=0.0)
    for _ in bar:
        bar.set_postfix(loss="0.5")
    said = capsys.readouterr().err
    assert "\r" not in said
    assert "work: 3 of 3" in said and "loss=0.5" in said


def test_quick_work_says_nothing(capsys):
    assert list(progress(range(3), "work")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_notebook_shows_a_bar(capsys, monkeypatch):
    shell = SimpleNamespace(kernel=object())
    jupyter = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", jupyter)
    assert list(progress(range(3), "work")) == [0, 1, 2]
    said = capsys.readouterr().err
    assert "\r" in said and "100%" in said and "3/3" in said


def test_who_only_imports_the_libraries_of_a_notebook_is_in_none(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", module)
    for shell in (None, SimpleNamespace()):  # no IPython, IPython in a terminal
        ipython = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert list(progress(range(3), "work")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
