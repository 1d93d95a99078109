"""
The simple captioning model: OpenCV runs the encoder, NumPy the decoder.

The same weights, vocabulary and search as the full model, in a tenth of its memory, since no deep
learning framework is loaded.
"""

from typing import NamedTuple

import cv2
import numpy as np

from ..preprocessing import SIZE
from .checkpoint import Checkpoint, CheckpointError, WeightReader
from .generation import CaptioningModel
from .onnx_encoder import encoder_graph


class State(NamedTuple):
    """Where the decoder stands; rows are the beams."""

    hidden: np.ndarray  # (K, H)
    context: np.ndarray  # (L, 3H): what each cell adds to the gates
    scores: np.ndarray  # (L, A): what each cell adds to the attention's hidden layer


class NumpyDecoder:
    """
    The GRU with soft attention of `AttentionDecoder`, arranged for one image at a time.

    What a cell contributes to the gates and to the attention is projected once an image, and
    what the state contributes to both comes from one product a word.
    """

    def __init__(self, read, decoder_dim: int, embed_dim: int) -> None:
        h = decoder_dim
        self._h = h
        self._embedding = read('embedding.weight')
        inputs = read('decode_step.weight_ih')
        self._from_word = np.ascontiguousarray(inputs[:, :embed_dim])
        self._from_cell = np.concatenate([inputs[:, embed_dim:], read('encoder_att.weight')])
        del inputs
        self._input_bias = read('decode_step.bias_ih')
        self._from_hidden = np.concatenate(
            [read('decode_step.weight_hh'), read('decoder_att.weight')])
        self._hidden_bias = np.concatenate([read('decode_step.bias_hh'), read('decoder_att.bias')])
        self._cell_bias = read('encoder_att.bias')
        self._full_att = read('full_att.weight')[0]  # its bias moves all scores alike
        self._init_h, self._init_bias = read('init_h.weight'), read('init_h.bias')
        self._fc, self._fc_bias = read('fc.weight'), read('fc.bias')

    def start(self, cells: np.ndarray) -> State:
        """Return the first state for (L, C) cells."""
        hidden = self._init_h @ cells.mean(axis=0) + self._init_bias
        projected = cells @ self._from_cell.T
        return State(
            hidden[None], projected[:, :3 * self._h],
            projected[:, 3 * self._h:] + self._cell_bias)

    def step(self, words: np.ndarray, state: State):
        """Return logits (K, V), the new state and the attention (K, L) after reading (K,) words."""
        h = self._h
        from_hidden = state.hidden @ self._from_hidden.T
        from_hidden += self._hidden_bias
        scores = np.maximum(from_hidden[:, None, 3 * h:] + state.scores, 0) @ self._full_att
        attention = np.exp(scores - scores.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)

        from_input = self._embedding[words] @ self._from_word.T
        from_input += self._input_bias
        from_input += attention @ state.context
        # Of one exponential the sigmoid of both gates: 1 / (1 + exp(-x)).
        gates = from_input[:, :2 * h] + from_hidden[:, :2 * h]
        gates = 0.5 + 0.5 * np.tanh(0.5 * gates)
        reset, update = gates[:, :h], gates[:, h:]
        new = np.tanh(from_input[:, 2 * h:] + reset * from_hidden[:, 2 * h:3 * h])
        hidden = new + update * (state.hidden - new)
        logits = hidden @ self._fc.T
        logits += self._fc_bias
        return logits, state._replace(hidden=hidden), attention

    def select(self, state: State, rows: np.ndarray) -> State:
        """Return the state whose beams are these rows of this one."""
        return state._replace(hidden=state.hidden[rows])


class SimpleCaptioningModel(CaptioningModel):
    """
    Captions images of 224x224 without a deep learning framework.

    :param checkpoint: a packed one.
    :raises CheckpointError: if it is a `.pth`, or damaged.
    """

    name = 'simple'

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.packed:
            raise CheckpointError(
                f'{checkpoint.path}: the simple model reads packed files only; make one with '
                f'`jetcap pack {checkpoint.path} --out FILE.safetensors`')
        super().__init__(checkpoint.vocabulary, checkpoint.score_calibration, checkpoint.search)
        with WeightReader(checkpoint) as reader:
            graph = encoder_graph(
                checkpoint.blocks, lambda name: reader.array(f'encoder.{name}'), SIZE)
            try:
                self._encoder = cv2.dnn.readNetFromONNX(np.frombuffer(graph, np.uint8))
            except cv2.error as error:
                raise RuntimeError(
                    f'OpenCV {cv2.__version__} cannot build the encoder: {error}') from error
            del graph
            self.decoder = NumpyDecoder(
                lambda name: reader.array(f'decoder.{name}'), checkpoint.decoder_dim,
                checkpoint.embed_dim)

    def cells(self, image: np.ndarray) -> np.ndarray:
        """Return the features (49, C) of a normalized image (1, 3, 224, 224)."""
        self._encoder.setInput(np.asarray(image, np.float32))
        features = self._encoder.forward()[0]
        return features.reshape(len(features), -1).T
