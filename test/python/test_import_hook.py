"""A hook on the import of a module acts when the module was executed, whatever was done to find it before."""

import copy
import importlib
import importlib.machinery
import importlib.util
import inspect
import pkgutil
import sys
import threading
import zipfile

import pytest

from torch_safetensors._import_hook import after_import

#: What the calls returned.
makes_up = []
SOURCE = "value = 1\n\ndef function():\n    return value\n"


@pytest.fixture
def imports(tmp_path, monkeypatch):
    """Where modules are found, and none of them stays; hooks neither."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def hooked(folder, name="hooked_module", source=SOURCE):
    """The modules that the hook was called with, as they are imported."""
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    calls = []
    makes_up.append(after_import(name, lambda module: calls.append((module, module.value)), "something is missing"))
    return calls


def hooks():
    return [finder for finder in sys.meta_path if type(finder).__module__ == "torch_safetensors._import_hook"]


def find_spec(name):
    assert importlib.util.find_spec(name) is not None


def find_spec_twice(name):
    find_spec(name)
    find_spec(name)


def pkgutil_finds_it(name):
    assert name in [module.name for module in pkgutil.iter_modules()]


def finders_are_asked(name):
    assert any(finder.find_spec(name, None, None) is not None for finder in list(sys.meta_path))


def a_module_is_made_and_not_executed(name):
    importlib.util.module_from_spec(importlib.util.find_spec(name))


def a_copy_is_executed(name):
    """Which is not the one that others import."""
    spec = importlib.util.find_spec(name)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def the_loader_is_asked_and_copied(name):
    loader = importlib.util.find_spec(name).loader
    assert loader.get_source(name) == SOURCE
    assert not loader.is_package(name)
    assert copy.copy(loader).get_source(name) == SOURCE


def threads_look_for_it(name):
    threads = [threading.Thread(target=find_spec, args=(name,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


PROBES = [
    find_spec,
    find_spec_twice,
    pkgutil_finds_it,
    finders_are_asked,
    a_module_is_made_and_not_executed,
    a_copy_is_executed,
    the_loader_is_asked_and_copied,
    threads_look_for_it,
]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_does_not_disarm_it(imports, probe):
    before = len(hooks())
    calls = hooked(imports)
    probe("hooked_module")
    assert len(hooks()) == before + 1
    calls.clear()
    module = importlib.import_module("hooked_module")
    assert calls == [(module, 1)]
    assert len(hooks()) == before


def test_it_acts_once_and_leaves_the_module_as_it_is_without(imports):
    (imports / "plain_module.py").write_text(SOURCE)
    before = list(sys.meta_path)
    calls = hooked(imports)
    assert sys.meta_path[1:] == before
    import hooked_module
    import plain_module

    assert calls == [(hooked_module, 1)]
    assert sys.meta_path == before
    assert type(hooked_module.__loader__) is type(plain_module.__loader__) is importlib.machinery.SourceFileLoader
    assert hooked_module.__spec__.loader is hooked_module.__loader__
    assert hooked_module.__spec__.cached is not None
    assert inspect.getsource(hooked_module.function) == inspect.getsource(plain_module.function)
    importlib.reload(hooked_module)
    assert calls == [(hooked_module, 1)]


def test_a_list_of_finders_that_another_thread_goes_through_stays(imports):
    hooked(imports)
    finders, before = sys.meta_path, list(sys.meta_path)
    importlib.import_module("hooked_module")
    assert finders == before
    assert sys.meta_path == before[1:]


def test_an_import_that_fails_does_not_disarm_it(imports):
    calls = hooked(imports, source="raise RuntimeError('not now')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"):
            importlib.import_module("hooked_module")
    assert "hooked_module" not in sys.modules
    (imports / "hooked_module.py").write_text(SOURCE + "# mended\n")
    importlib.invalidate_caches()
    module = importlib.import_module("hooked_module")
    assert calls == [(module, 1)]


def test_a_module_that_is_not_there_yet(imports):
    calls = hooked(imports)
    (imports / "hooked_module.py").rename(imports / "later.py")
    importlib.invalidate_caches()
    assert importlib.util.find_spec("hooked_module") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hooked_module")
    (imports / "later.py").rename(imports / "hooked_module.py")
    importlib.invalidate_caches()
    module = importlib.import_module("hooked_module")
    assert calls == [(module, 1)]


def test_threads_that_import_at_once(imports):
    calls = hooked(imports, source="import time\ntime.sleep(0.2)\nvalue = 1\n")
    threads = [threading.Thread(target=importlib.import_module, args=("hooked_module",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [(sys.modules["hooked_module"], 1)]


def test_a_module_that_is_there_already(imports):
    (imports / "hooked_module.py").write_text(SOURCE)
    importlib.invalidate_caches()
    module = importlib.import_module("hooked_module")
    before = list(sys.meta_path)
    assert hooked(imports) == [(module, 1)]
    assert sys.meta_path == before


def test_a_module_that_another_thread_is_importing(imports):
    entered, go_on = threading.Event(), threading.Event()
    sys.modules["events_of_the_test"] = type(sys)("events_of_the_test")
    vars(sys.modules["events_of_the_test"]).update(entered=entered, go_on=go_on)
    source = "import events_of_the_test as events\nevents.entered.set()\nevents.go_on.wait(60)\nvalue = 1\n"
    (imports / "hooked_module.py").write_text(source)
    importlib.invalidate_caches()
    thread = threading.Thread(target=importlib.import_module, args=("hooked_module",))
    thread.start()
    assert entered.wait(60)
    threading.Timer(0.2, go_on.set).start()
    calls = hooked(imports, source=source)  # waits: the module has no value yet
    thread.join()
    assert calls == [(sys.modules["hooked_module"], 1)]


def test_modules_of_a_loader_that_they_share(imports):
    with zipfile.ZipFile(imports / "modules.zip", "w") as archive:
        archive.writestr("first_module.py", SOURCE)
        archive.writestr("hooked_module.py", SOURCE)
    sys.path.insert(0, str(imports / "modules.zip"))
    calls = []
    after_import("hooked_module", calls.append, "something is missing")
    find_spec("hooked_module")
    first = importlib.import_module("first_module")
    assert calls == []
    module = importlib.import_module("hooked_module")
    assert calls == [module]
    assert module.__loader__.archive == first.__loader__.archive


def test_two_hooks_on_one_module(imports):
    first, second = hooked(imports), hooked(imports)
    find_spec("hooked_module")
    module = importlib.import_module("hooked_module")
    assert first == second == [(module, 1)]
    assert hooks() == [hook for hook in hooks() if hook._name != "hooked_module"]


def test_a_hook_of_others_that_asks_all_finders(imports):
    """As wrapt does it."""
    calls = hooked(imports)
    asked = []

    class Other:
        def find_spec(self, name, path=None, target=None):
            if name != "hooked_module" or asked:
                return None
            asked.append(name)
            return importlib.util.find_spec(name)

    sys.meta_path.insert(0, Other())
    module = importlib.import_module("hooked_module")
    assert asked
    assert calls == [(module, 1)]


def test_a_hook_that_was_taken_away_is_made_up_for(imports):
    calls = hooked(imports)
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in hooks()]
    makes_up[-1]()
    assert "hooked_module" not in sys.modules
    module = importlib.import_module("hooked_module")
    assert calls == []
    makes_up[-1]()
    makes_up[-1]()
    assert calls == [(module, 1)]
    del sys.modules["hooked_module"]
    again = importlib.import_module("hooked_module")
    makes_up[-1]()
    assert calls == [(module, 1), (again, 1)]


def test_a_callback_that_fails_does_not_fail_the_import(imports):
    (imports / "hooked_module.py").write_text(SOURCE)
    importlib.invalidate_caches()

    def fail(module):
        raise KeyError("what a release lacks")

    after_import("hooked_module", fail, "something is missing")
    expected = r"torch .*: something is missing \(hooked_module: KeyError: 'what a release lacks'\)"
    with pytest.warns(UserWarning, match=expected):
        module = importlib.import_module("hooked_module")
    assert module.value == 1
    with pytest.warns(UserWarning, match=expected):
        after_import("hooked_module", fail, "something is missing")
