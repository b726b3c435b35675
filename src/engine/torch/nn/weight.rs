//! Weights that models share: a clone is the same memory until a LoRA changes it. On a CPU that memory is brought into
//! the order that it multiplies fastest in when a weight is first used.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::{ConvParams, Forward, WeightMemory, onednn};
use crate::engine::torch::device::cpu;
use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Scope;

/// A change of a weight by the product of two smaller ones.
#[derive(Debug)]
pub(in crate::engine::torch) struct LowRank {
    /// `[outputs, rank]`, f32.
    pub(in crate::engine::torch) up: Tensor,
    /// In the weight's shape but for `rank` instead of `outputs`, f32.
    pub(in crate::engine::torch) down: Tensor,
}

/// A matrix `[outputs, inputs]` or a kernel `[outputs, inputs, height, width]` that knows which modules its outputs are
/// of. Clones share the tensor.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Weight {
    memory: Rc<WeightMemory>,
    /// Modules by name, each with its number of outputs, in the order in which they lie there.
    parts: Rc<[(String, i64)]>,
}

impl Weight {
    /// The tensor `weight` of the module at `at`.
    pub(super) fn load(at: &Scope, shape: &[i64]) -> Result<Self, LoadError> {
        let parts = [(at.name().to_owned(), shape[0])];
        Ok(Self::of(at.tensor("weight", shape)?, parts.into()))
    }

    fn of(tensor: Tensor, parts: Rc<[(String, i64)]>) -> Self {
        Self { memory: Rc::new(WeightMemory::new(tensor)), parts }
    }

    /// Several with their outputs side by side.
    pub(super) fn stacked(weights: &[&Self]) -> Forward<Self> {
        let tensors = weights.iter().map(|weight| weight.plain()).collect::<Forward<Vec<_>>>()?;
        let parts = weights.iter().flat_map(|weight| weight.parts.iter().cloned()).collect();
        Ok(Self::of(Tensor::f_cat(&tensors, 0)?, parts))
    }

    /// Outputs of all modules.
    pub(super) fn outputs(&self) -> i64 {
        self.parts.iter().map(|(_, outputs)| outputs).sum()
    }

    /// The same in another memory layout.
    pub(super) fn laid_out(self, layout: impl FnOnce(&Tensor) -> Forward) -> Forward<Self> {
        Ok(Self::of(layout(&self.plain()?)?, self.parts))
    }

    /// `x Wᵀ + b + more` over the last dimension, of a matrix.
    pub(super) fn multiply(&self, x: &Tensor, bias: Option<&Tensor>, more: Option<&Tensor>) -> Forward {
        let weight = self.ready(onednn::pack_matrix)?;
        match more {
            Some(more) if onednn::is_packed(&weight) => onednn::multiply_add(x, &weight, bias, more),
            None if onednn::is_packed(&weight) => onednn::multiply(x, &weight, bias),
            Some(more) => x.f_linear(&weight, bias)?.f_add(more),
            None => x.f_linear(&weight, bias),
        }
    }

    /// The same of a kernel of one pixel. For a GPU: what a CPU has packed is unpacked at every call.
    pub(super) fn multiply_pixels(&self, x: &Tensor, bias: Option<&Tensor>) -> Forward {
        x.f_linear(&self.plain()?.f_flatten(1, -1)?, bias)
    }

    /// `x` convolved with a kernel.
    pub(super) fn convolve(&self, x: &Tensor, bias: Option<&Tensor>, params: ConvParams) -> Forward {
        let weight = self.ready(|plain| onednn::pack_kernel(plain, params, &x.size()))?;
        if onednn::is_packed(&weight) {
            return onednn::convolve(x, &weight, bias, params);
        }
        let ConvParams { stride, padding, .. } = params;
        x.f_conv2d(&weight, bias, [stride; 2], [padding; 2], [1; 2], 1)
    }

    /// As it is used, packed in place at the first time, for all clones.
    fn ready(&self, pack: impl FnOnce(&Tensor) -> Forward) -> Forward {
        let mut tensor = self.memory.tensor_mut();
        if onednn::can_pack(&tensor) {
            *tensor = pack(&tensor)?;
            cpu::note_freed(tensor.numel() * tensor.kind().elt_size_in_bytes());
        }
        Ok(tensor.shallow_clone())
    }

    /// Where it lies.
    pub(in crate::engine::torch) fn memory(&self) -> &Rc<WeightMemory> {
        &self.memory
    }

    /// Has `weights` of a part that was loaded at `at` go to main memory, if that is where parts lie until they are used.
    pub(in crate::engine::torch) fn offload_loaded<'a>(
        at: &Scope,
        weights: impl IntoIterator<Item = &'a mut Self>,
    ) -> Forward<()> {
        if !at.offloads() {
            return Ok(());
        }
        weights.into_iter().try_for_each(|weight| weight.memory.offload())
    }

    /// As it was loaded: a matrix is contiguous, a kernel has channels last.
    fn plain(&self) -> Forward {
        let tensor = self.memory.tensor();
        if !onednn::is_packed(&tensor) {
            return Ok(tensor.shallow_clone());
        }
        let plain = onednn::unpack(&tensor)?;
        if plain.dim() == 4 { channels_last(&plain) } else { Ok(plain) }
    }

    /// Adds what `change` knows of a module of this name and shape, in f32; kind and memory layout stay. Clones made before
    /// keep the old numbers, and where `change` knows nothing the memory stays shared with them.
    pub(in crate::engine::torch) fn add<E: From<tch::TchError>>(
        &mut self,
        mut change: impl FnMut(&str, &[i64]) -> Result<Option<LowRank>, E>,
    ) -> Result<(), E> {
        let mut sum = None;
        let mut start = 0;
        let (size, kind) = (self.memory.tensor().size(), self.memory.tensor().kind());
        for (module, outputs) in self.parts.iter() {
            let shape = [&[*outputs], &size[1..]].concat();
            if let Some(LowRank { up, down }) = change(module, &shape)? {
                let sum: &Tensor = match &mut sum {
                    Some(sum) => sum,
                    // From main memory, if another part of the model is on the device now.
                    none => {
                        none.insert(self.plain()?.f_to_device(up.device())?.f_to_dtype(Kind::Float, false, true)?)
                    }
                };
                // A view, or nothing would come of it: matrices are contiguous, kernels have channels last.
                let mut rows = by_pixel(&sum.f_narrow(0, start, *outputs)?)?.f_view([*outputs, -1])?;
                let rank = up.size2()?.1;
                let _ = rows.f_addmm_(&up, &by_pixel(&down)?.f_reshape([rank, -1])?)?;
            }
            start += outputs;
        }
        if let Some(sum) = sum {
            self.memory = Rc::new(WeightMemory::new(sum.f_to_kind(kind)?));
        }
        Ok(())
    }
}

/// `[outputs, height, width, inputs]` of a kernel; a matrix as it is.
fn by_pixel(x: &Tensor) -> Forward {
    if x.dim() == 4 { x.f_permute([0, 2, 3, 1]) } else { Ok(x.shallow_clone()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tch::{Device, TchError};

    use super::*;

    fn weight(name: &str, shape: &[i64], kind: Kind) -> Weight {
        let tensor = Tensor::arange(shape.iter().product::<i64>(), (kind, Device::Cpu)).reshape(shape);
        Weight::of(tensor, [(name.to_owned(), shape[0])].into())
    }

    /// A change of rank 1 that adds to each output its own number, times the place of the input in its kernel.
    fn change(wanted: &'static str) -> impl FnMut(&str, &[i64]) -> Result<Option<LowRank>, TchError> {
        move |module, shape| {
            let options = (Kind::Float, Device::Cpu);
            let down = Tensor::arange(shape[1..].iter().product::<i64>(), options);
            let down = down.reshape([&[1], &shape[1..]].concat());
            let up = Tensor::arange(shape[0], options).unsqueeze(1);
            Ok((module == wanted).then_some(LowRank { up, down }))
        }
    }

    #[test]
    fn a_part_of_a_stack_changes_and_earlier_clones_do_not() {
        let base = Weight::stacked(&[&weight("q", &[1, 3], Kind::Float), &weight("k", &[2, 3], Kind::Float)]).unwrap();
        let mut changed = base.clone();
        changed.add(change("k")).unwrap();
        let difference = Vec::<Vec<f32>>::try_from(changed.plain().unwrap() - base.plain().unwrap()).unwrap();
        assert_eq!(difference, [[0.0; 3], [0.0; 3], [0.0, 1.0, 2.0]]);
        assert_eq!(Vec::<f32>::try_from(base.plain().unwrap().get(2)).unwrap(), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_is_not_changed_stays_shared() {
        let base = weight("q", &[2, 3], Kind::Float);
        let mut same = base.clone();
        same.add(change("k")).unwrap();
        assert!(Rc::ptr_eq(&base.memory, &same.memory));
    }

    #[test]
    fn kind_and_layout_stay() {
        let base = weight("conv", &[3, 4, 3, 3], Kind::BFloat16).laid_out(channels_last).unwrap();
        let mut changed = base.clone();
        changed.add(change("conv")).unwrap();
        assert_eq!(changed.plain().unwrap().kind(), Kind::BFloat16);
        assert_eq!(changed.plain().unwrap().stride(), base.plain().unwrap().stride());
        assert!(!Rc::ptr_eq(&base.memory, &changed.memory));
    }

    #[test]
    fn a_change_of_what_was_packed_is_the_same() {
        let x = Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu));
        let base = weight("conv", &[3, 4, 3, 3], Kind::Float).laid_out(channels_last).unwrap();
        let mut unused = Weight::of(base.plain().unwrap(), Rc::clone(&base.parts));
        let _ = base.convolve(&x, None, ConvParams::SAME).unwrap();
        assert_eq!(onednn::is_packed(&base.memory.tensor()), cfg!(target_arch = "x86_64"));
        let mut used = base.clone();
        used.add(change("conv")).unwrap();
        unused.add(change("conv")).unwrap();
        assert_eq!(used.plain().unwrap(), unused.plain().unwrap());
        let draw = |weight: &Weight| weight.convolve(&x, None, ConvParams::SAME).unwrap();
        assert_eq!(draw(&used), draw(&unused));
    }

    #[test]
    fn a_kernel_changes_place_by_place() {
        let base = weight("conv", &[3, 4, 3, 3], Kind::Float).laid_out(channels_last).unwrap();
        let mut changed = base.clone();
        changed.add(change("conv")).unwrap();
        let LowRank { up, down } = change("conv")("conv", &[3, 4, 3, 3]).unwrap().unwrap();
        let product = up.matmul(&down.flatten(1, 3)).reshape([3, 4, 3, 3]);
        assert_eq!(changed.plain().unwrap() - base.plain().unwrap(), product);
    }
}
