# Sparse BEV on a grid: a tenth of the cells is active; these attend to each other, sample the images, and tell all cells.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(film=dict(kind='off'), sample=dict(self_attn=True, film_back=True)))
