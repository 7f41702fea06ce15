# PETRv2's BEV features of cameras alone: learned coarse queries, brought to the BEV's cells.
_base_ = './bevformer-lite-camera_r18_tiny-synthetic.py'
model = dict(
    fusion_layer=dict(
        _delete_=True, type='PETRv2Fusion', query_init='learned', bev_channels=64, img_channels=64, strides=(8,),
        layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128, query_grid=(16, 16)), embedding=dict(depths=16)),
    temporal=None, train_cfg=dict(grad_frames=None))
train_dataloader = dict(dataset=dict(seq_len=1))
