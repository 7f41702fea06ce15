# A StreamPETR on LiDAR learns boxes on the forecast world, in clips as its forecaster shows them.
_base_ = ['./shared-perception_pillar04_tiny-synthetic.py', '../_base_/models/forecast_queries.py']
model = dict(**_base_.query_parts)
