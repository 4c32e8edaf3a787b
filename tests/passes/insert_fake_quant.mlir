// RUN: insert-fake-quant{per-channel=false}
// Inputs and weights get grids; the accumulator of the last layer goes out as it is.
// CHECK:      "qat.fake_quant"(%arg0) <{grid = !quant.uniform<i8:f32, 7.8740157186985016e-03>}>
// CHECK:      "qat.fake_quant"(%{{.*}}) <{grid = !quant.uniform<i8<-127:127>:f32, 1.562500e-02>}>
// CHECK-NEXT: "hbir.linear"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>) -> tensor<1x2xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 0.5 -1.984375 0)}> : () -> tensor<2x2xf32>
    %y = "hbir.linear"(%x, %w) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
    "func.return"(%y) : (tensor<1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A constant map that a convolution adds (a position embedding) is an operand like others: it has a grid of its own.
// CHECK:      [[W:%[0-9]+]] = "qat.fake_quant"(%{{.*}}) <{grid = !quant.uniform<i8<-127:127>:f32, 1.000000e+00>}>
// CHECK:      [[R:%[0-9]+]] = "qat.fake_quant"(%{{.*}}) <{grid = !quant.uniform<i{{8|16}}:f32,
// CHECK-NEXT: "hbir.conv2d"(%{{[0-9]+}}, [[W]], [[R]])
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x1x2x1xf32>) -> tensor<1x1x2x1xf32>}> ({
  ^bb0(%x: tensor<1x1x2x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 127)}> : () -> tensor<1x1x1x1xf32>
    %p = "hbir.constant"() <{value = BLOB(f32: 1 -2)}> : () -> tensor<1x1x2x1xf32>
    %y = "hbir.conv2d"(%x, %w, %p) <{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 1>}>
      : (tensor<1x1x2x1xf32>, tensor<1x1x1x1xf32>, tensor<1x1x2x1xf32>) -> tensor<1x1x2x1xf32>
    "func.return"(%y) : (tensor<1x1x2x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
