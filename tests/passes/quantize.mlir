// RUN: quantize
// CHECK:      %0 = "quantized.quantize"(%arg0) <{grid = !quant.uniform<i8:f32, 6.250000e-02>}>
// CHECK:      "hbir.max_pool"(%0)
// CHECK:      "quantized.function"(%{{[0-9]+}}) <{function = "tanh", grid = !quant.uniform<i8:f32, 7.812500e-03>}>
// CHECK:      "quantized.dequantize"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x1xf32>) -> tensor<1x1x1x1xf32>}> ({
  ^bb0(%x: tensor<1x2x2x1xf32>):
    %0 = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.0625>}> : (tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32>
    %1 = "hbir.max_pool"(%0) <{kernel = array<i64: 2, 2>, stride = array<i64: 2, 2>, pad = array<i64: 0, 0, 0, 0>, ceil = false}>
      : (tensor<1x2x2x1xf32>) -> tensor<1x1x1x1xf32>
    %2 = "hbir.function"(%1) <{function = "tanh"}> : (tensor<1x1x1x1xf32>) -> tensor<1x1x1x1xf32>
    %3 = "qat.fake_quant"(%2) <{grid = !quant.uniform<i8:f32, 0.0078125>}> : (tensor<1x1x1x1xf32>) -> tensor<1x1x1x1xf32>
    "func.return"(%3) : (tensor<1x1x1x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// ERROR: HB0311 at layer 'act': an activation has scales per axis
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>) -> tensor<1x2xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>):
    %0 = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32:1, {0.5, 0.25}>}> : (tensor<1x2xf32>) -> tensor<1x2xf32> loc("act")
    "func.return"(%0) : (tensor<1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
