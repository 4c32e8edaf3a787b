// RUN: fix-lut
// CHECK:      %[[T:.*]] = "hbir.constant"{{.*}} tensor<256xi8> loc("act")
// CHECK-NEXT: "quantized.table"(%arg0, %[[T]]) <{function = "tanh", grid = !quant.uniform<i8:f32, 7.812500e-03>}>
// CHECK-SAME: loc("act")
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x!quant.uniform<i8:f32, 0.0625>>) -> tensor<2x!quant.uniform<i8:f32, 0.0078125>>}> ({
  ^bb0(%x: tensor<2x!quant.uniform<i8:f32, 0.0625>>):
    %0 = "quantized.function"(%x) <{function = "tanh", grid = !quant.uniform<i8:f32, 0.0078125>}>
      : (tensor<2x!quant.uniform<i8:f32, 0.0625>>) -> tensor<2x!quant.uniform<i8:f32, 0.0078125>> loc("act")
    "func.return"(%0) : (tensor<2x!quant.uniform<i8:f32, 0.0078125>>) -> ()
  }) : () -> ()
}) : () -> ()
