//! Weights that models share: a clone is the same memory until a LoRA changes it.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::Forward;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::Scope;

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
    tensor: Rc<Tensor>,
    /// Modules by name, each with its number of outputs, in the order in which they lie there.
    parts: Rc<[(String, i64)]>,
}

impl Weight {
    /// The tensor `weight` of the module at `at`.
    pub(super) fn load(at: &Scope, shape: &[i64]) -> Result<Self, LoadError> {
        let parts = [(at.name().to_owned(), shape[0])];
        Ok(Self { tensor: Rc::new(at.tensor("weight", shape)?), parts: Rc::new(parts) })
    }

    /// Several with their outputs side by side.
    pub(super) fn stacked(weights: &[&Self]) -> Forward<Self> {
        let tensors: Vec<&Tensor> = weights.iter().map(|weight| weight.tensor()).collect();
        let parts = weights.iter().flat_map(|weight| weight.parts.iter().cloned()).collect();
        Ok(Self { tensor: Rc::new(Tensor::f_cat(&tensors, 0)?), parts })
    }

    /// The same in another memory layout.
    pub(super) fn laid_out(self, layout: impl FnOnce(&Tensor) -> Forward) -> Forward<Self> {
        Ok(Self { tensor: Rc::new(layout(&self.tensor)?), ..self })
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Adds what `change` knows of a module of this name and shape, in f32; kind and memory layout stay. Clones made before
    /// keep the old numbers, and where `change` knows nothing the memory stays shared with them.
    pub(in crate::engine::torch) fn add<E: From<tch::TchError>>(
        &mut self,
        mut change: impl FnMut(&str, &[i64]) -> Result<Option<LowRank>, E>,
    ) -> Result<(), E> {
        let mut sum = None;
        let mut start = 0;
        for (module, outputs) in self.parts.iter() {
            let shape = [&[*outputs], &self.tensor.size()[1..]].concat();
            if let Some(LowRank { up, down }) = change(module, &shape)? {
                let sum: &Tensor = match &mut sum {
                    Some(sum) => sum,
                    none => none.insert(self.tensor.f_to_dtype(Kind::Float, false, true)?),
                };
                // A view, or nothing would come of it: matrices are contiguous, kernels have channels last.
                let mut rows = by_pixel(&sum.f_narrow(0, start, *outputs)?)?.f_view([*outputs, -1])?;
                let rank = up.size2()?.1;
                let _ = rows.f_addmm_(&up, &by_pixel(&down)?.f_reshape([rank, -1])?)?;
            }
            start += outputs;
        }
        if let Some(sum) = sum {
            self.tensor = Rc::new(sum.f_to_kind(self.tensor.kind())?);
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

    use super::super::channels_last;
    use super::*;

    fn weight(name: &str, shape: &[i64], kind: Kind) -> Weight {
        let tensor = Tensor::arange(shape.iter().product::<i64>(), (kind, Device::Cpu)).reshape(shape);
        Weight { tensor: Rc::new(tensor), parts: Rc::new([(name.to_owned(), shape[0])]) }
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
        let difference = Vec::<Vec<f32>>::try_from(changed.tensor() - base.tensor()).unwrap();
        assert_eq!(difference, [[0.0; 3], [0.0; 3], [0.0, 1.0, 2.0]]);
        assert_eq!(Vec::<f32>::try_from(base.tensor().get(2)).unwrap(), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_is_not_changed_stays_shared() {
        let base = weight("q", &[2, 3], Kind::Float);
        let mut same = base.clone();
        same.add(change("k")).unwrap();
        assert!(Rc::ptr_eq(&base.tensor, &same.tensor));
    }

    #[test]
    fn kind_and_layout_stay() {
        let base = weight("conv", &[3, 4, 3, 3], Kind::BFloat16).laid_out(channels_last).unwrap();
        let mut changed = base.clone();
        changed.add(change("conv")).unwrap();
        assert_eq!(changed.tensor().kind(), Kind::BFloat16);
        assert_eq!(changed.tensor().stride(), base.tensor().stride());
        assert!(!Rc::ptr_eq(&base.tensor, &changed.tensor));
    }

    #[test]
    fn a_kernel_changes_place_by_place() {
        let base = weight("conv", &[3, 4, 3, 3], Kind::Float).laid_out(channels_last).unwrap();
        let mut changed = base.clone();
        changed.add(change("conv")).unwrap();
        let LowRank { up, down } = change("conv")("conv", &[3, 4, 3, 3]).unwrap().unwrap();
        let product = up.matmul(&down.flatten(1, 3)).reshape([3, 4, 3, 3]);
        assert_eq!(changed.tensor() - base.tensor(), product);
    }
}
