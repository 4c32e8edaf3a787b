// RUN: expand-conv-transpose
// A kernel of the extent of its stride: 1 x 1, the phases as channels; the relu joins the convolution.
// CHECK:      "hbir.conv2d"(%arg0, %{{.*}}) <{{.*}}pad = array<i64: 0, 0, 0, 0>{{.*}}tensor<4x1x1x1xf32>) -> tensor<1x2x3x4xf32> loc("up")
// CHECK-NEXT: "hbir.clip"{{.*}} loc("relu")
// CHECK-NEXT: "hbir.reshape"(%{{.*}}) <{shape = array<i64: 2, 3, 2, 2>}>
// CHECK-NEXT: "hbir.transpose"(%{{.*}}) <{permutation = array<i64: 0, 2, 1, 3>}>
// CHECK-NEXT: "hbir.reshape"(%{{.*}}) <{shape = array<i64: 1, 4, 6, 1>}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x3x1xf32>) -> tensor<1x4x6x1xf32>}> ({
  ^bb0(%x: tensor<1x2x3x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 2 3 4)}> : () -> tensor<1x2x2x1xf32>
    %0 = "hbir.conv_transpose2d"(%x, %w) <{stride = array<i64: 2, 2>, pad = array<i64: 0, 0, 0, 0>,
      output_pad = array<i64: 0, 0>, groups = 1 : i64}>
      : (tensor<1x2x3x1xf32>, tensor<1x2x2x1xf32>) -> tensor<1x4x6x1xf32> loc("up")
    %1 = "hbir.clip"(%0) <{min = 0.0 : f64}> : (tensor<1x4x6x1xf32>) -> tensor<1x4x6x1xf32> loc("relu")
    "func.return"(%1) : (tensor<1x4x6x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// 4 x 4 with stride 2 and pad 1: two taps along each axis, one block more than positions, and a slice. Grids stay: the one of the
// weight for each phase, the one behind it in front of depth to space.
// CHECK:      "qat.fake_quant"(%{{.*}}) <{grid = !quant.uniform<i8<-127:127>:f32:0, {5.000000e-01,5.000000e-01,5.000000e-01,5.000000e-01}>}> : (tensor<4x2x2x1xf32>)
// CHECK:      "hbir.conv2d"(%{{.*}}) <{{.*}}pad = array<i64: 1, 1, 1, 1>{{.*}} -> tensor<1x4x4x4xf32>
// CHECK-NEXT: "qat.fake_quant"{{.*}}tensor<1x4x4x4xf32>
// CHECK:      "hbir.slice"(%{{.*}}) <{begin = array<i64: 0, 1, 1, 0>, end = array<i64: 1, 7, 7, 1>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x3x3x1xf32>) -> tensor<1x6x6x1xf32>}> ({
  ^bb0(%x: tensor<1x3x3x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)}> : () -> tensor<1x4x4x1xf32>
    %q = "qat.fake_quant"(%w) <{grid = !quant.uniform<i8<-127:127>:f32:0, {0.5}>}> : (tensor<1x4x4x1xf32>) -> tensor<1x4x4x1xf32>
    %0 = "hbir.conv_transpose2d"(%x, %q) <{stride = array<i64: 2, 2>, pad = array<i64: 1, 1, 1, 1>,
      output_pad = array<i64: 0, 0>, groups = 1 : i64}> : (tensor<1x3x3x1xf32>, tensor<1x4x4x1xf32>) -> tensor<1x6x6x1xf32>
    %1 = "qat.fake_quant"(%0) <{grid = !quant.uniform<i8:f32, 0.25>}> : (tensor<1x6x6x1xf32>) -> tensor<1x6x6x1xf32>
    "func.return"(%1) : (tensor<1x6x6x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A weight that is not known stays where it is.
// CHECK: "hbir.conv_transpose2d"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x1xf32>, tensor<1x2x2x1xf32>) -> tensor<1x4x4x1xf32>}> ({
  ^bb0(%x: tensor<1x2x2x1xf32>, %w: tensor<1x2x2x1xf32>):
    %0 = "hbir.conv_transpose2d"(%x, %w) <{stride = array<i64: 2, 2>, pad = array<i64: 0, 0, 0, 0>,
      output_pad = array<i64: 0, 0>, groups = 1 : i64}> : (tensor<1x2x2x1xf32>, tensor<1x2x2x1xf32>) -> tensor<1x4x4x1xf32>
    "func.return"(%0) : (tensor<1x4x4x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
