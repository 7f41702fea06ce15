"""docs/own_data.md from the tables to a score: its own files and commands, on a rig of three cameras with names of its own."""

import json
import re
import subprocess
import sys

from nuscenes.nuscenes import NuScenes

# Tools one after the other in one process, as loading the libraries takes longer than all they do.
RUN = """
import json, runpy, sys, warnings
warnings.filterwarnings('ignore')
for arguments in json.load(sys.stdin):
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name='__main__')
"""


def block(page, language):
    return re.search(rf'^```{language}\n(.+?)^```', page, re.DOTALL | re.MULTILINE)[1]


def test_from_the_tables_of_an_own_rig_to_a_score(repo, three_camera_rig, tmp_path):
    page = (repo / 'docs' / 'own_data.md').read_text()
    data, work_dir = tmp_path / 'data' / 'my_rig', tmp_path / 'work'
    data.parent.mkdir()
    data.symlink_to(three_camera_rig)
    (data / 'splits.json').write_text(block(page, 'json'))
    config = tmp_path / 'futrpp_my-rig.py'
    config.write_text(block(page, 'python').replace("'./", f"'{repo}/configs/fusion/").replace("'data/my_rig/", f"'{data}/"))
    short = tmp_path / 'short.py'
    short.write_text(f"""
_base_ = ['{config}']
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-3, by_epoch=True, convert_to_iter_based=True, total_steps=1)]
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_cfg = val_dataloader = val_evaluator = None
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(checkpoint=dict(save_best=None), visualization=dict(max_samples=1))
""")
    lines = re.findall(r'^    python (tools/(?:create_data|train|test)\.py .+)$', page, re.MULTILINE)
    commands = [line.split() for line in lines]
    assert [words[0] for words in commands] == ['tools/create_data.py', 'tools/train.py', 'tools/test.py']
    changed = {'configs/fusion/futrpp_my-rig.py': short, 'work_dirs/futrpp_my-rig/epoch_13.pth': work_dir / 'epoch_1.pth',
               'work_dirs/pictures': tmp_path / 'pictures', 'data/my_rig': data,
               'data/my_rig/splits.json': data / 'splits.json'}
    commands = [[str(changed.get(word, word)) for word in words] for words in commands]
    for words in commands[1:]:
        words += ['--work-dir', str(work_dir)]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', RUN], input=json.dumps(commands), cwd=repo, text=True,
                          capture_output=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    prefix = "{'pts': 'samples/ROOF', 'sweeps': 'sweeps/ROOF', 'FRONT_WIDE': 'samples/FRONT_WIDE'"
    assert f'LiDAR ROOF, cameras FRONT_WIDE, REAR, LEFT; configs that read these infos need data_prefix={prefix}' in said
    assert 'an evaluation set of its own: 2 scenes, 10 of the 10 keyframes' in said
    assert 'over 4 of 10 classes (car, pedestrian, motorcycle, bicycle)' in said
    scores = json.loads(next(work_dir.glob('*/*.json')).read_text())
    assert 0 <= scores['NuScenes metric/NDS'] <= 1 and 'NuScenes metric/pred_instances_3d_NuScenes/bicycle_trans_err' in scores
    nusc = NuScenes('v1.0-rig', str(data), verbose=False)
    first = next(scene for scene in nusc.scene if scene['name'] == 'yard-1')
    assert {path.name for path in (tmp_path / 'pictures').rglob('*.png')} >= {
        f'{first["name"]}_000_bev.png', f'{first["name"]}_000_cameras.png'}
