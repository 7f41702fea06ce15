# Row of tools/compare_fusions.py: FuTr++ without sampling.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(sample=dict(_delete_=True, kind='off')))
