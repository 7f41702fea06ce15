# StreamPETR with LiDAR alone on the tiny synthetic world; most queries begin where a heat map of the BEV peaks, as TransFusion's do.
_base_ = './streampetr-lidar_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(queries=dict(num_learned=32, num_proposed=64)))
