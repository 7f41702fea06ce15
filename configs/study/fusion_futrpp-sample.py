# Row of tools/compare_fusions.py: FuTr++ without FiLM.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(film=dict(kind='off')))
