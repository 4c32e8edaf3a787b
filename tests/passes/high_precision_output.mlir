// RUN: high-precision-output
// CHECK:      "quantized.conv2d"{{.*}} grid = !quant.uniform<i32:f32, 1.250000e-01>
// CHECK-NEXT: "quantized.dequantize"(%{{.*}}) <{grid = !quant.uniform<i32:f32, 1.250000e-01>}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x1x1x1x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x1x1x1xf32>}> ({
  ^bb0(%x: tensor<1x1x1x1x!quant.uniform<i8:f32, 0.5>>):
    %w = "hbir.constant"() <{value = BLOB(i8: 7)}> : () -> tensor<1x1x1x1x!quant.uniform<i8<-127:127>:f32, 0.25>>
    %c = "quantized.conv2d"(%x, %w) <{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>,
      groups = 1 : i64, multiplier = array<i32: 16385>, shift = array<i8: 16>, low = -128 : i64, high = 127 : i64,
      grid = !quant.uniform<i8:f32, 0.5>, operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
      : (tensor<1x1x1x1x!quant.uniform<i8:f32, 0.5>>, tensor<1x1x1x1x!quant.uniform<i8<-127:127>:f32, 0.25>>)
      -> tensor<1x1x1x1x!quant.uniform<i8:f32, 0.5>>
    %d = "quantized.dequantize"(%c) <{grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<1x1x1x1x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x1x1x1xf32>
    "func.return"(%d) : (tensor<1x1x1x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
