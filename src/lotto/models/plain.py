"""Proof that a network is what its classes say: nothing takes a fast path for what someone has changed.

A fast path computes what a class is known to compute. Whoever puts a hook on a layer, another layer in its place, a
parametrization, a function of his own over `forward` or one tensor under two names has written another network.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

_FOR_ALL = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)
"""torch's hooks on all modules of a process."""
_OURS = {"fused"}
"""Attributes that we set ourselves, see `norm_relu.by_operators`."""


def is_plain(module: nn.Module, types: Collection[type[nn.Module]]) -> bool:
    """Whether a module and all its parts are exactly of these types, and as their constructors make them.

    That is: no subclass, `is_unhooked`, no attribute in the place of a method, every parameter a tensor of its own.
    """
    parts = [part for _, part in module.named_modules(remove_duplicate=False)]
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    return (
        all(type(part) in types and _has_own_methods(part) for part in parts)
        and len(parts) == len({id(part) for part in parts})
        and len(names) == len(list(module.parameters()))
        and is_unhooked(module)
        and has_separate_parameters(module)
    )


def is_unhooked(module: nn.Module) -> bool:
    """Whether there is no hook: on a part of the module, on a parameter, or on all modules of the process."""
    hooked = any("hook" in name and value for part in module.modules() for name, value in vars(part).items())
    return not (hooked or any(map(_is_hooked, module.parameters())) or hooks_for_all())


def hooks_for_all() -> bool:
    """Whether someone has put a hook on all modules of this process."""
    return any(getattr(nn.modules.module, name, None) for name in _FOR_ALL)


def has_separate_parameters(module: nn.Module) -> bool:
    """Whether each parameter is an ordinary tensor and shares memory with no other; one may have several names."""
    parameters = [p for p in module.parameters() if p.numel()]
    memory = {p.untyped_storage().data_ptr() for p in parameters}
    return len(memory) == len(parameters) and all(type(p) is nn.Parameter for p in parameters)


def _has_own_methods(part: nn.Module) -> bool:
    """Whether the methods are those of the class, and its forward that of the class's author."""
    kind = type(part)
    return not (set(vars(part)) - _OURS) & set(dir(kind)) and kind.forward.__module__ == kind.__module__


def _is_hooked(parameter: Tensor) -> bool:
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))
