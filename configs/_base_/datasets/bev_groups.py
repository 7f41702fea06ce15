# Classes that BEV segmentation takes for one.
groups = dict(
    vehicle=['car', 'truck', 'construction_vehicle', 'bus', 'trailer'], cycle=['motorcycle', 'bicycle'],
    person=['pedestrian'], obstacle=['barrier', 'traffic_cone'])
