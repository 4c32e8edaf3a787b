// RUN: narrow-movement
// A chain of moves behind a dequantize works on int8; two readers that both move are both served.
// CHECK:      "hbir.transpose"(%arg0) {{.*}}!quant.uniform
// CHECK:      "hbir.slice"(%{{.*}}) {{.*}}!quant.uniform
// CHECK:      "quantized.dequantize"(%{{.*}}) {{.*}} -> tensor<1x2xf32> loc("deq")
// CHECK:      "hbir.reshape"(%arg0) {{.*}}!quant.uniform
// CHECK-NEXT: "quantized.dequantize"(%{{.*}}) {{.*}} -> tensor<6xf32> loc("deq")
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3x!quant.uniform<i8:f32, 0.5:3>>)
    -> (tensor<1x2xf32>, tensor<6xf32>)}> ({
  ^bb0(%x: tensor<2x3x!quant.uniform<i8:f32, 0.5:3>>):
    %f = "quantized.dequantize"(%x) <{grid = !quant.uniform<i8:f32, 0.5:3>}>
      : (tensor<2x3x!quant.uniform<i8:f32, 0.5:3>>) -> tensor<2x3xf32> loc("deq")
    %t = "hbir.transpose"(%f) <{permutation = array<i64: 1, 0>}> : (tensor<2x3xf32>) -> tensor<3x2xf32> loc("t")
    %s = "hbir.slice"(%t) <{begin = array<i64: 1, 0>, end = array<i64: 2, 2>, step = array<i64: 1, 1>}>
      : (tensor<3x2xf32>) -> tensor<1x2xf32> loc("s")
    %r = "hbir.reshape"(%f) <{shape = array<i64: 6>}> : (tensor<2x3xf32>) -> tensor<6xf32> loc("r")
    "func.return"(%s, %r) : (tensor<1x2xf32>, tensor<6xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Grids that differ keep their concat in float, but a transpose behind it moves each part as int8.
// CHECK:      "hbir.transpose"(%arg0) {{.*}}!quant.uniform
// CHECK-NEXT: "quantized.dequantize"
// CHECK-NEXT: "hbir.transpose"(%arg1) {{.*}}!quant.uniform
// CHECK-NEXT: "quantized.dequantize"
// CHECK-NEXT: "hbir.concat"(%{{.*}}) <{axis = 1 : i64}> : (tensor<3x2xf32>, tensor<3x4xf32>) -> tensor<3x6xf32>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3x!quant.uniform<i8:f32, 0.5>>,
    tensor<4x3x!quant.uniform<i8:f32, 0.25>>) -> tensor<3x6xf32>}> ({
  ^bb0(%x: tensor<2x3x!quant.uniform<i8:f32, 0.5>>, %y: tensor<4x3x!quant.uniform<i8:f32, 0.25>>):
    %a = "quantized.dequantize"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<2x3x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x3xf32>
    %b = "quantized.dequantize"(%y) <{grid = !quant.uniform<i8:f32, 0.25>}>
      : (tensor<4x3x!quant.uniform<i8:f32, 0.25>>) -> tensor<4x3xf32>
    %c = "hbir.concat"(%a, %b) <{axis = 0 : i64}> : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<6x3xf32>
    %t = "hbir.transpose"(%c) <{permutation = array<i64: 1, 0>}> : (tensor<6x3xf32>) -> tensor<3x6xf32>
    "func.return"(%t) : (tensor<3x6xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// One grid: the concat itself joins int8.
// CHECK:      "hbir.concat"(%arg0, %arg0) {{.*}}!quant.uniform
// CHECK-NEXT: "quantized.dequantize"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<4xf32>}> ({
  ^bb0(%x: tensor<2x!quant.uniform<i8:f32, 0.5>>):
    %a = "quantized.dequantize"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2xf32>
    %b = "quantized.dequantize"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<2x!quant.uniform<i8:f32, 0.5>>) -> tensor<2xf32>
    %c = "hbir.concat"(%a, %b) <{axis = 0 : i64}> : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
    "func.return"(%c) : (tensor<4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// What an output reads too, an accumulator, and scales along an axis stay in float.
// CHECK-COUNT-3: "hbir.transpose"(%{{.*}}) <{permutation = array<i64: 1, 0>}> : (tensor<2x3xf32>)
// CHECK: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3x!quant.uniform<i8:f32, 0.5>>,
    tensor<2x3x!quant.uniform<i32:f32, 0.5>>, tensor<2x3x!quant.uniform<i8:f32:1, {0.5,0.25,1.0}>>)
    -> (tensor<2x3xf32>, tensor<3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>)}> ({
  ^bb0(%x: tensor<2x3x!quant.uniform<i8:f32, 0.5>>, %y: tensor<2x3x!quant.uniform<i32:f32, 0.5>>,
    %z: tensor<2x3x!quant.uniform<i8:f32:1, {0.5,0.25,1.0}>>):
    %a = "quantized.dequantize"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}>
      : (tensor<2x3x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x3xf32>
    %b = "quantized.dequantize"(%y) <{grid = !quant.uniform<i32:f32, 0.5>}>
      : (tensor<2x3x!quant.uniform<i32:f32, 0.5>>) -> tensor<2x3xf32>
    %c = "quantized.dequantize"(%z) <{grid = !quant.uniform<i8:f32:1, {0.5,0.25,1.0}>}>
      : (tensor<2x3x!quant.uniform<i8:f32:1, {0.5,0.25,1.0}>>) -> tensor<2x3xf32>
    %0 = "hbir.transpose"(%a) <{permutation = array<i64: 1, 0>}> : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %1 = "hbir.transpose"(%b) <{permutation = array<i64: 1, 0>}> : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %2 = "hbir.transpose"(%c) <{permutation = array<i64: 1, 0>}> : (tensor<2x3xf32>) -> tensor<3x2xf32>
    "func.return"(%a, %0, %1, %2) : (tensor<2x3xf32>, tensor<3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A quantize rises through pad (whose value becomes a code) and concat to the inputs; a slice keeps it behind.
// CHECK:      %[[A:.*]] = "quantized.quantize"(%arg0)
// CHECK:      "hbir.pad"(%[[A]]) <{{.*}}value = 7.000000e+00
// CHECK:      "quantized.quantize"(%arg1)
// CHECK:      "hbir.concat"(%{{.*}}) {{.*}}!quant.uniform
// CHECK:      "hbir.slice"(%arg1) {{.*}} -> tensor<1xf32>
// CHECK-NEXT: "quantized.quantize"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>, tensor<3xf32>)
    -> (tensor<7x!quant.uniform<i8:f32, 0.5:3>>, tensor<1x!quant.uniform<i8:f32, 0.5:3>>)}> ({
  ^bb0(%x: tensor<2xf32>, %y: tensor<3xf32>):
    %p = "hbir.pad"(%x) <{before = array<i64: 1>, after = array<i64: 1>, mode = "constant", value = 2.0 : f64}>
      : (tensor<2xf32>) -> tensor<4xf32>
    %c = "hbir.concat"(%p, %y) <{axis = 0 : i64}> : (tensor<4xf32>, tensor<3xf32>) -> tensor<7xf32>
    %q = "quantized.quantize"(%c) <{grid = !quant.uniform<i8:f32, 0.5:3>}>
      : (tensor<7xf32>) -> tensor<7x!quant.uniform<i8:f32, 0.5:3>>
    %s = "hbir.slice"(%y) <{begin = array<i64: 1>, end = array<i64: 2>, step = array<i64: 1>}>
      : (tensor<3xf32>) -> tensor<1xf32>
    %r = "quantized.quantize"(%s) <{grid = !quant.uniform<i8:f32, 0.5:3>}>
      : (tensor<1xf32>) -> tensor<1x!quant.uniform<i8:f32, 0.5:3>>
    "func.return"(%q, %r) : (tensor<7x!quant.uniform<i8:f32, 0.5:3>>, tensor<1x!quant.uniform<i8:f32, 0.5:3>>) -> ()
  }) : () -> ()
}) : () -> ()
