"""What each method is, in a line each: for `orchestrator methods` and for who chooses among them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """One method.

    Attributes:
        source: the paper whose algorithm it is; `trainables/methods/` says what is inferred.
        does: to the network.
        stored: what stands in the packed file and in ONNX and torch exports.
        runtimes: what runs the stored network, and in which form.
        limits: which networks and settings it cannot serve.

    """

    source: str
    does: str
    stored: str
    runtimes: str
    limits: str


_PLAIN_FP32 = "OpenVINO, ONNX Runtime and torch in fp32"
_FEW_BITS = "OpenVINO and ONNX Runtime in int8; torch; the packed runtime in bits where inputs are signs or ternary"
_GROUPS = (
    "needs channels that can be followed and cut, as those of ShuffleNetV2 cannot be; scope inner needs some outside "
    "of residual sums"
)
_RECTIFIED = "from a ReLU, which leaves out MobileNetV2 and ShuffleNetV2"
_SIGNS = (
    f"inputs of fewer bits have to come {_RECTIFIED}; signs and ternary ones need model.block bn_first, vgg_small, or "
    "a network of which convolutions alone read activations"
)

METHOD_FACTS: Mapping[str, MethodFacts] = {
    "stq": MethodFacts(
        "STQ-Nets (Munagala, Prabhu and Namboodiri, BMVC 2020)",
        "whole filters pruned, the others one bit a weight, or ternary or of two values",
        "fewer channels; weights of 1 or 1.6 bits",
        _FEW_BITS,
        f"{_GROUPS}; {_SIGNS}",
    ),
    "binary": MethodFacts(
        "XNOR-Net (Rastegari et al., ECCV 2016)",
        "one bit a weight, one scale a filter; stq at pfr 0",
        "weights of 1 bit",
        _FEW_BITS,
        _SIGNS,
    ),
    "dabn": MethodFacts(
        "Distribution-Aware Binarization (Prabhu et al., WACV 2018)",
        "weights of the two best values of each filter, inputs of one bit",
        "weights of 1 bit and two numbers a filter",
        "the packed runtime in bits; OpenVINO, ONNX Runtime and torch in fp32, as int8 has no two free values",
        f"activations float: none; else {_SIGNS}",
    ),
    "hybrid": MethodFacts(
        "Hybrid Binary Networks (Prabhu et al., WACV 2018)",
        "one bit a weight, the last layer included; inputs of one bit where signs do least harm",
        "weights of 1 bit; signs for some activations",
        _FEW_BITS,
        _SIGNS,
    ),
    "l1_prune": MethodFacts(
        "Pruning Filters for Efficient ConvNets (Li et al., ICLR 2017), with a ramp",
        "filters of the least mean |w| pruned",
        "fewer channels in fp32",
        _PLAIN_FP32,
        _GROUPS,
    ),
    "group_sparsity": MethodFacts(
        "Learning the Number of Neurons in Deep Networks (Alvarez and Salzmann, NIPS 2016)",
        "a group penalty takes channels to zero; they are cut while the network trains",
        "fewer channels in fp32; how many is an outcome",
        _PLAIN_FP32,
        _GROUPS,
    ),
    "low_rank": MethodFacts(
        "Compression-aware Training of Deep Networks (Alvarez and Salzmann, NIPS 2017)",
        "a nuclear-norm penalty lowers ranks; layers are split in two while the network trains",
        "two fp32 layers for one where that is smaller",
        _PLAIN_FP32,
        "needs a convolution of one group or a linear layer outside of keep",
    ),
    "decompose": MethodFacts(
        "DecomposeMe (Alvarez and Petersson, 2016)",
        "k x k convolutions become k x 1 and 1 x k ones",
        "two fp32 layers for one, with BN and ReLU between where asked",
        _PLAIN_FP32,
        "needs a k x k convolution of one group outside of keep that is more work than its pair",
    ),
    "expand": MethodFacts(
        "ExpandNets (Guo, Alvarez and Salzmann, NeurIPS 2020)",
        "layers train as chains of wider linear ones, which are contracted at the end",
        "the parent's layers in fp32",
        _PLAIN_FP32,
        "needs square odd kernels or linear layers outside of keep; training costs about factor^2 times as much",
    ),
    "xnet": MethodFacts(
        "Deep Expander Networks (Prabhu, Varma and Namboodiri, ECCV 2018)",
        "filters read few inputs, along a random balanced graph or as a group convolution",
        "an index of the inputs read and fp32 convolutions of groups",
        f"{_PLAIN_FP32}; many small groups are slow there, see block",
        "groups and blocks have to divide the channels; a linear layer has to read one vector an image",
    ),
    "lkam": MethodFacts(
        "Parsimonious Inference (Theodorakopoulos et al., arXiv 1701.05221); patented, for research",
        "small gates switch kernels on and off for each image; those that are hardly ever on are removed",
        "convolutions with gates in fp32; fewer channels",
        "the skipping runtime, which computes what is on for an image; OpenVINO, ONNX Runtime and torch compute all",
        "needs convolutions of one group that, behind their own BN, convolutions and linear layers alone read",
    ),
    "ptq_group": MethodFacts(
        "Low-bit Quantization with Limited Data (ICPR 2020)",
        "a trained network quantized with few images and no labels: groups of filters, block by block, then together",
        "weights of 2 to 8 bits with a step and a zero a group, BN folded; activations of 2 to 8 bits",
        "OpenVINO and ONNX Runtime in int8, weights exact; torch",
        f"groups have to divide the filters; layers between first and last have to read {_RECTIFIED}, or "
        "activation_bits null",
    ),
    "combine": MethodFacts(
        "the claim of the sources' theses that methods add up",
        "methods one after the other, each a stage that pipelines with the same beginning share",
        "what the steps leave",
        "what runs the networks of the last step",
        "two to four steps; one that leaves few bits or gates comes last; xnet before nothing that cuts or splits",
    ),
    "finetune": MethodFacts(
        "no paper: the baseline dense_finetuned",
        "nothing compressed, the parent trained on",
        "the parent's layers in fp32",
        _PLAIN_FP32,
        "none",
    ),
}
"""By name, in the order in which they are listed."""
