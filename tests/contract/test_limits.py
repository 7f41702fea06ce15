"""The habits of our own code that a machine can count: sizes, annotations, what a file says of itself first."""

import ast
import re

from sources import FILES, PROJECTS, TOOLS, nodes_of, room, shown, text_of

CONFIG_FACING = ('detectors', 'memory')
"""Whose registered constructors are the config grammar: their keys stay flat, 18 at most; 12 everywhere else."""
GRAMMARS_OF_OTHERS = {'AnchorHeadMulti': 16}
"""Keys that follow mmdet3d's anchor heads and OpenPCDet's checkpoint."""
TAKES_ANY_KEYWORD = {
    'around': 'every name is an axis of the grid; dataclasses.replace refuses others',
    'fill_grid': 'every name is a slot of the detector',
    '_refuse': 'stands in for a method that must not be called, and raises',
    'load_from_fileobj': "MMEngine's signature; ours refuses all",
}
WORDS = dict(Common='common', Geometry='geometry', Contract='structures', Metric='metrics', Picture='visualization',
             Hook='hooks', Runtime='runtime', Doctor='calibration_doctor', Study='studies', Benchmark='benchmarks',
             Measure='benchmarks', Demo='demos', Image='images', Converter='convert', Spatial='spatial_mllm',
             Sampling='sample_frames', Report='reports', Export='export')
"""First words that name a room."""
PROGRAMS = ('calibration_doctor', 'studies', 'benchmarks', 'demos', 'convert', 'sample_frames', 'export')


def named(kind, path):
    return [node for node in nodes_of(path) if isinstance(node, kind)]


def arguments(function):
    args = function.args
    return [*args.posonlyargs, *args.args, *args.kwonlyargs]


def offenders(check, files=(*FILES, *TOOLS), kind=(ast.FunctionDef, ast.AsyncFunctionDef)):
    return [f'{shown(path)}:{node.lineno} {getattr(node, "name", "")}' for path in files for node in named(kind, path)
            if not check(node)]


def test_files_are_short():
    assert [shown(path) for path in (*FILES, *TOOLS) if len(text_of(path).splitlines()) > 400] == []


def test_functions_are_short():
    assert offenders(lambda node: node.end_lineno - node.lineno < 60) == []


def test_constructors_take_few_arguments():
    found = {}
    for path in FILES:
        for node in named(ast.ClassDef, path):
            registered = any('register_module' in ast.unparse(decorator) for decorator in node.decorator_list)
            limit = GRAMMARS_OF_OTHERS.get(node.name, 18 if registered and room(path) in CONFIG_FACING else 12)
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == '__init__':
                    taken = len(arguments(function)) - 1
                    if taken > limit:
                        found[f'{shown(path)} {node.name}'] = taken
    assert found == {}


def test_all_arguments_are_annotated():
    assert offenders(lambda node: all(arg.annotation or arg.arg in ('self', 'cls')
                     for arg in (*arguments(node), *filter(None, (node.args.vararg, node.args.kwarg))))) == []


def test_no_error_is_caught_unnamed():
    assert offenders(lambda node: node.type is not None, kind=ast.ExceptHandler) == []


def test_keywords_are_handed_on_and_not_swallowed():
    def hands_on(node):
        if node.args.kwarg is None or node.name in TAKES_ANY_KEYWORD:
            return True
        inside = [part for statement in node.body for part in ast.walk(statement)]
        unpacked = [part.value for part in inside if isinstance(part, ast.keyword) and part.arg is None]
        unpacked += [value for part in inside if isinstance(part, ast.Dict) for key, value in zip(part.keys, part.values)
                     if key is None]
        return any(isinstance(value, ast.Name) and value.id == node.args.kwarg.arg for value in unpacked)

    assert offenders(hands_on) == []


def test_a_file_says_first_what_it_is():
    silent, elsewhere = [], []
    for path in filter(text_of, FILES):
        said = (ast.get_docstring(nodes_of(path)[0]) or '').partition('\n')[0]
        word = re.match(r'(?:Stage )?(\w*)', said)[1].removesuffix('s')
        if not said.endswith(('.', ':', '?')):
            silent.append(shown(path))
        elif room(path) != 'synthetic_nuscenes' and WORDS.get(word, room(path)) != room(path):
            elsewhere.append(f'{shown(path)}: {said}')
        elif room(path) in PROGRAMS and path.name != '__init__.py' and word not in WORDS:
            elsewhere.append(f'{shown(path)}: {said}')
    assert silent == [] and elsewhere == []


def test_packages_of_plain_parts_are_empty():
    """Importing one block must not import all of mmdet3d: what ties rooms together is `register.py`."""
    empty = [PROJECTS / name / '__init__.py' for name in ('common', 'memfusion', 'memfusion/losses')]
    assert [shown(path) for path in empty if text_of(path)] == []
