// RUN: fold-requantize
// There and back on grids that hold every value: nothing is left. Through a coarser grid: both stay.
// CHECK:      "quantized.rescale"(%arg0)
// CHECK-NEXT: "quantized.rescale"
// CHECK-NEXT: "func.return"(%arg0, %1)
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x!quant.uniform<i8:f32, 0.5>>)
    -> (tensor<2x!quant.uniform<i8:f32, 0.5>>, tensor<2x!quant.uniform<i8:f32, 0.5>>)}> ({
  ^bb0(%x: tensor<2x!quant.uniform<i8:f32, 0.5>>):
    %0 = "quantized.rescale"(%x) <{multiplier = array<i32: 16385>, shift = array<i8: 14>, grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x!quant.uniform<i8:f32, 0.5>>
    %1 = "quantized.rescale"(%x) <{multiplier = array<i32: 16385>, shift = array<i8: 16>, grid = !quant.uniform<i8:f32, 2.0>}>
      : (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x!quant.uniform<i8:f32, 2.0>>
    %2 = "quantized.rescale"(%1) <{multiplier = array<i32: 16385>, shift = array<i8: 12>, grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<2x!quant.uniform<i8:f32, 2.0>>) -> tensor<2x!quant.uniform<i8:f32, 0.5>>
    "func.return"(%0, %2) : (tensor<2x!quant.uniform<i8:f32, 0.5>>, tensor<2x!quant.uniform<i8:f32, 0.5>>) -> ()
  }) : () -> ()
}) : () -> ()
