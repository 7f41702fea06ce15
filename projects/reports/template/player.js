(function () {
  'use strict';
  const SVG = 'http://www.w3.org/2000/svg';
  const scene = JSON.parse(document.getElementById('scene').textContent);
  const control = (id) => document.getElementById(id);
  const add = (parent, kind, attributes) => {
    const element = document.createElementNS(SVG, kind);
    Object.keys(attributes).forEach((name) => element.setAttribute(name, attributes[name]));
    parent.appendChild(element);
    return element;
  };
  const picture = (parent, size, id) => add(parent, 'image', {
    id: id, x: 0, y: 0, width: size[0], height: size[1], preserveAspectRatio: 'none',
  });

  const bev = control('bev');
  const cameras = control('cameras');
  bev.setAttribute('viewBox', '0 0 ' + scene.bev.join(' '));
  const bevPicture = picture(bev, scene.bev, 'bev-picture');
  const gatePicture = picture(bev, scene.bev, 'gate-picture');
  const bevBoxes = add(bev, 'g', { id: 'bev-boxes' });
  let camerasPicture = null;
  let tileBoxes = [];
  if (scene.tiles.length) {
    cameras.setAttribute('viewBox', '0 0 ' + scene.mosaic.join(' '));
    camerasPicture = picture(cameras, scene.mosaic, 'cameras-picture');
    tileBoxes = scene.tiles.map((tile) => add(cameras, 'svg', { x: tile.x, y: tile.y, width: tile.width, height: tile.height }));
  } else {
    cameras.style.display = 'none';
  }
  control('gate-name').textContent = scene.gate_name;
  ['truth', 'predictions', 'gate'].forEach((layer) => {
    control(layer).disabled = !scene.has[layer];
    control(layer).checked = control(layer).checked && scene.has[layer];
  });

  const show = (image, uri) => {
    if (uri) {
      image.setAttribute('href', uri);
    } else {
      image.removeAttribute('href');
    }
  };
  const outline = (parent, path, box) => {
    const element = add(parent, 'path', { d: path, class: box.kind });
    add(element, 'title', {}).textContent = box.kind + ': ' + box.text + (box.score === null ? '' : ' ' + box.score);
  };
  const draw = () => {
    const frame = scene.frames[Number(control('frame').value)];
    const least = Number(control('score').value);
    control('title').textContent = frame.title;
    control('least').textContent = least.toFixed(2);
    show(bevPicture, frame.bev);
    show(gatePicture, control('gate').checked ? frame.gate : null);
    if (camerasPicture) {
      show(camerasPicture, frame.cameras);
    }
    [bevBoxes].concat(tileBoxes).forEach((group) => { group.textContent = ''; });
    frame.boxes.forEach((box) => {
      const layer = box.kind === 'truth' ? 'truth' : 'predictions';
      if (!control(layer).checked || (box.kind === 'prediction' && box.score !== null && box.score < least)) {
        return;
      }
      outline(bevBoxes, box.bev, box);
      box.cameras.forEach((seen) => outline(tileBoxes[seen[0]], seen[1], box));
    });
  };

  let timer = null;
  control('play').addEventListener('click', () => {
    if (timer !== null) {
      clearInterval(timer);
      timer = null;
    } else {
      timer = setInterval(() => {
        control('frame').value = (Number(control('frame').value) + 1) % scene.frames.length;
        draw();
      }, 500);
    }
    control('play').textContent = timer === null ? 'play' : 'stop';
  });
  ['frame', 'score', 'truth', 'predictions', 'gate'].forEach((id) => control(id).addEventListener('input', draw));
  draw();
}());
