# Camera poses in the place of time (HW+P).
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
model = dict(spatial=dict(pose=dict(_delete_=True, mode='replace')))
